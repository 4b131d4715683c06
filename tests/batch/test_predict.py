from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from evodeploy.artefacts import identity
from evodeploy.batch import predict
from evodeploy.batch.decode import prepared_batches
from evodeploy.batch.inputs import Files
from evodeploy.engines.base import run_all
from evodeploy.engines.finite import PROBLEM
from evodeploy.errors import UsageError
from evodeploy.specs import EngineOptions


def answering(path):
    return predict.Answerer(path, identity(path), "onnxruntime", EngineOptions(threads=1), top=2)


def test_an_artefact_that_has_changed_since_the_run_began_is_refused(small_onnx):
    with pytest.raises(UsageError, match=r"\.onnx has changed since the run began: restore it and resume"):
        predict.Answerer(small_onnx, "0" * 64, "onnxruntime", EngineOptions(threads=1), top=2)


@pytest.mark.parametrize("features", [False, True])
def test_an_output_that_is_no_number_is_the_error_of_its_image(small_onnx, tmp_path, monkeypatch, features):
    def run(engine, images, chunk):
        outputs = run_all(engine, images, chunk)
        outputs["logits"][1, 0] = np.nan
        return {"features": outputs["logits"]} if features else outputs

    monkeypatch.setattr(predict, "run_all", run)
    for name in ("a.png", "c.png", "d.png"):
        Image.new("RGB", (70, 70)).save(tmp_path / name)
    answerer = answering(small_onnx)
    info = answerer._predictor.info
    if features:
        monkeypatch.setattr(answerer._predictor, "info", type(info)(**{**vars(info), "num_classes": 0}))
    names = ("a.png", "b.png", "c.png", "d.png")  # of which b.png is missing, and c.png the second that is run
    (batch,) = prepared_batches(0, Files(names), tmp_path, info, 9)
    rows = answerer(batch).to_pylist()
    errors = [row["error"] for row in rows]
    assert (errors[0], errors[1], errors[3]) == (None, "No such file or directory", None)
    assert errors[2] == PROBLEM
    given = [row["features" if features else "probabilities"] is not None for row in rows]
    assert given == [True, False, False, True]


def test_an_engine_is_given_as_many_images_at_a_time_as_are_asked_for(small_onnx, tmp_path, monkeypatch):
    for number in range(40):
        Image.new("RGB", (70, 70)).save(tmp_path / f"{number:02}.png")
    answerer = answering(small_onnx)
    engine, sizes = answerer._predictor.engine, []
    run = engine._run
    monkeypatch.setattr(engine, "_run", lambda images, keep: sizes.append(len(images)) or run(images, keep))
    names = tuple(f"{number:02}.png" for number in range(40))
    (batch,) = prepared_batches(0, Files(names), tmp_path, answerer._predictor.info, 40)
    assert answerer(batch).num_rows == 40
    assert sizes == [40]
    (unreadable,) = prepared_batches(0, Files(("none.png",)), tmp_path, answerer._predictor.info, 40)
    assert answerer(unreadable).num_rows == 1
    assert sizes == [40]
