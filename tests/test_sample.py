"""The bundled sample: its accuracy measured again, in PyTorch and through the deployed artefacts."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import evodeploy
from evodeploy.exporter.to_onnx import onnx_from_model
from evodeploy.graph.precision import reduced_from_onnx
from evodeploy.models.checkpoint import load_checkpoint
from evodeploy.models.loaded import reconfigured
from evodeploy.models.zoo import dense_twin, with_selection
from evodeploy.onnx_files import write_onnx

SAMPLE = Path(__file__).parents[1] / "sample"
sys.path.insert(0, str(SAMPLE))

from digits import split  # noqa: E402


@pytest.fixture(scope="module")
def model():
    return load_checkpoint(SAMPLE / "digits.pth")


@pytest.fixture(scope="module")
def held_out():
    _, pictures = split()
    return pictures


def accuracy(logits, labels) -> float:
    return float((np.asarray(logits).argmax(axis=1) == np.asarray(labels)).mean())


def stated() -> dict[str, float]:
    """The accuracies that the sample's README states, by mode."""
    rows = re.findall(r"^\| ([^|]+?) \| ([\d.]+) % \|$", (SAMPLE / "README.md").read_text(), re.MULTILINE)
    return {mode: float(percent) for mode, percent in rows}


def test_the_checkpoint_is_small_and_of_the_published_form(model):
    assert (SAMPLE / "digits.pth").stat().st_size < 2e6
    assert model.config.name == "evo_deit_digits"
    assert model.config.tokens >= 64
    assert model.config.selecting_of() == (4, 8)
    assert model.info.class_names == tuple("0123456789")


def test_held_out_accuracy_is_what_the_readme_states(model, held_out):
    assert len(held_out.labels) > 400
    for mode, config in {
        "dense": dense_twin(model.config),
        "stage-wise, keep 0.5": model.config,
        "layer-wise, keep 0.5": with_selection(model.config, selection="layer"),
    }.items():
        measured = accuracy(reconfigured(model, config).module(held_out.images), held_out.labels)
        assert 100 * measured == pytest.approx(stated()[mode], abs=0.005), mode
        assert measured > 0.97


def test_the_log_holds_the_schedule_and_of_the_end(model):
    log = [json.loads(line) for line in (SAMPLE / "training-log.jsonl").read_text().splitlines()]
    modes = [row["selection"] for row in log]
    assert modes == ["layer"] * (len(log) * 2 // 3) + ["stage"] * (len(log) - len(log) * 2 // 3)
    assert 100 * log[-1]["held_out_accuracy"] == pytest.approx(stated()["stage-wise, keep 0.5"], abs=0.005)


@pytest.mark.parametrize(
    ("engine", "precision"),
    [
        ("onnxruntime", "fp16"),
        ("openvino", "fp32"),
        pytest.param("onnxruntime", "fp32", marks=pytest.mark.slow),
        pytest.param("openvino", "fp16", marks=pytest.mark.slow),
    ],
)
def test_deployed_it_is_as_accurate(tmp_path, model, held_out, engine, precision):
    proto = onnx_from_model(model)
    write_onnx(reduced_from_onnx(proto, "fp16").model if precision == "fp16" else proto, tmp_path / "digits.onnx")
    expected = model.module(held_out.images).numpy()
    with evodeploy.load(tmp_path / "digits.onnx", engine) as predictor:
        got = predictor.predict_logits(held_out.images.numpy())
    agreement = (got.argmax(axis=1) == expected.argmax(axis=1)).mean()
    assert agreement == 1.0 if precision == "fp32" else agreement >= 0.995


def test_the_bundled_pictures_are_read_rightly(model):
    pictures = sorted((SAMPLE / "images").glob("*.png"))
    assert len(pictures) == 10
    with evodeploy.load(SAMPLE / "digits.pth") as predictor:
        predictions = predictor.predict(pictures)
    right = [p.name.split("-")[1] == prediction.label.name for p, prediction in zip(pictures, predictions, strict=True)]
    assert sum(right) >= 9
