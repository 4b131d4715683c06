"""What the run on Ray does around it. The run itself: test_batch.py."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from pathlib import Path

import pytest
from fake_engines import FakeEngine
from PIL import Image
from ray.exceptions import RayActorError

from evodeploy.batch import run
from evodeploy.batch.decode import prepared_batches
from evodeploy.batch.inputs import Files
from evodeploy.batch.pipeline import Work, _why, without_line
from evodeploy.batch.run import BatchRequest, Summary, run_batch
from evodeploy.errors import UsageError
from evodeploy.inference.predictor import Predictor
from evodeploy.specs import EngineOptions, ModelInfo

INFO = ModelInfo("fake", 8, 4, 3, "stage", (0.5,))


@pytest.fixture
def begun(small_onnx, tmp_path, monkeypatch):
    """Begin a run of an engine on a device, and answer nothing."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    monkeypatch.setattr(run, "cluster", lambda work, address: contextlib.nullcontext())
    monkeypatch.setattr(run, "results", lambda shards, work: ())

    def begin(device):
        def load(*args, **options):
            engine = FakeEngine(INFO)
            engine.device = device
            return Predictor(engine)

        monkeypatch.setattr(run, "load", load)
        run_batch(BatchRequest(small_onnx, (str(tmp_path / "a.png"),), tmp_path / "out"), progress=print)

    return begin


def test_a_run_on_another_kind_of_device_is_another_run(begun):
    begun("cuda")
    begun("cuda:0")
    with pytest.raises(UsageError, match=r"another run \(its device: cuda, now cpu\)"):
        begun("cpu")


def test_a_gpu_that_ray_may_not_choose_is_refused(begun):
    with pytest.raises(UsageError, match=r"run on cuda:1, but Ray chooses the GPU of each actor: use --device cuda,"):
        begun("cuda:1")


@pytest.mark.parametrize(
    ("last", "sentence"),
    [
        ("evodeploy.errors.BadFileError: model.onnx has changed", "model.onnx has changed"),
        ("OSError: no space left", "OSError: no space left"),
    ],
)
def test_why_an_actor_does_not_start_is_the_end_of_its_traceback(last, sentence):
    message = f"The actor died because of an error raised in its creation task\n  File x\n{last}\n"
    assert _why(RayActorError("a1", message, True)) == sentence


@pytest.mark.parametrize("form", ["float32", "uint8", "uint8-nchw"])
def test_a_block_is_as_large_as_a_batch_of_prepared_images(tmp_path, form):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    info = dataclasses.replace(INFO, input_format=form)
    (table,) = prepared_batches(0, Files(("a.png", "a.png")), tmp_path, info, 2)
    work = Work(tmp_path, Path("m.onnx"), "", info, "fake", False, EngineOptions(), actors=1, batch=2, top=1)
    assert work.block == len(table["images"][0].as_py())


def test_images_without_a_prediction_need_not_be_unreadable(cli, small_onnx, monkeypatch):
    monkeypatch.setattr(run, "run_batch", lambda request, progress: Summary(3, 0, 3, 1, 0))
    code, out, err = cli("batch", small_onnx, "photos", "--output", "out")
    assert "3 images have no prediction" in out
    assert (code, "none of the 3 images has a prediction: see out/errors" in err) == (4, True)


@pytest.mark.parametrize("end", [None, KeyboardInterrupt])
def test_one_line_is_left_out_of_what_is_said_inside(capfd, end):
    try:
        with without_line(b"log level"):
            os.write(2, b"before\nSet the log level to 3\nafter\n")
            if end:
                raise end
    except KeyboardInterrupt:
        pass
    os.write(2, b"Set the log level again\n")
    assert capfd.readouterr().err == "before\nafter\nSet the log level again\n"
