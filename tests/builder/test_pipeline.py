"""`evodeploy.build` as a program calls it; what it shares with the command is in tests/cli/test_build.py."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
from cases import SMALL
from graphs import restated
from PIL import Image

import evodeploy
from evodeploy.builder import decisions, engine
from evodeploy.engines.tensorrt.sidecar import Profile, read_sidecar
from evodeploy.errors import UsageError, VerificationError
from evodeploy.files import sha256
from evodeploy.inspection.describe import describe
from evodeploy.models.random_weights import random_model
from evodeploy.onnx_files import precision_of, read_onnx, write_onnx


@pytest.fixture
def onnx(small_onnx, tmp_path):
    return shutil.copy(small_onnx, tmp_path / "m.onnx")


def test_a_build_is_a_record(onnx, tmp_path):
    built = evodeploy.build(str(onnx), precision="fp16", max_batch=16, targets="SM89", log=tmp_path / "build.log")
    assert built.path == tmp_path / "m.engine"
    assert built.record == read_sidecar(built.path)
    assert built.engine.profiles == built.record.profiles == (Profile(1, 16, 16),)
    assert "fp16 for sm89, batch 1 to 16 (best at 16)" in str(built)
    assert json.loads(json.dumps(built.to_dict()))["targets"] == ["sm89"]
    with pytest.raises(UsageError, match="already exists"):
        evodeploy.build(onnx, precision="fp16", targets=("sm89",))


def test_a_dry_run_returns_what_would_be_built(onnx, tmp_path):
    built = evodeploy.build(onnx, precision="fp16", profiles=[(1, 1, 4), (8, None, 64)], targets=["sm86"], dry_run=True)
    assert built.record is None
    assert str(built).startswith(f"would build {tmp_path / 'm.engine'}: fp16 with tensorrt-rtx")
    assert [profile["opt"] for profile in built.to_dict()["profiles"]] == [1, 32]
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"profiles": (1, 8, 32)}, r"profiles is \(1, 8, 32\), expected a list, each \(a whole number, "),
        ({"workspace": -1}, "the workspace is -1 bytes"),
        ({"precision": "fp4"}, "precision is 'fp4', expected one of fp32"),
        ({"profiles": [(1, 2, 4)], "max_batch": 8}, "exclude each other"),
        ({"precision": "int8"}, "export it with --int8 --images DIR"),
        ({"hardware_compatible": "all"}, "expected one of ampere-plus, same-capability"),
    ],
)
def test_refuses_arguments_that_do_not_fit(onnx, tmp_path, arguments, message):
    with pytest.raises(UsageError, match=message):
        evodeploy.build(onnx, targets="sm89", **arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize(("module", "step"), [(decisions, "read_onnx"), (engine, "plan_from_onnx")])
def test_a_record_is_of_the_file_that_was_read(onnx, monkeypatch, module, step):
    """An export that replaces it after this step would otherwise count as what the engine was built from."""
    built_from, real = sha256(onnx), getattr(module, step)

    def replaced(*arguments):
        result = real(*arguments)
        restated(onnx, onnx, source="other.pth")
        return result

    monkeypatch.setattr(module, step, replaced)
    found = evodeploy.build(onnx, precision="fp16", targets="sm89").record
    assert found.source_sha256 == built_from != sha256(onnx)


def test_activations_beyond_fp16_are_found_on_random_images(tmp_path, onnx, logged):
    module = random_model(SMALL, seed=3).module
    module.blocks[0].norm2.weight *= 1e3
    module.blocks[0].mlp.fc1.weight *= 1e4
    path = evodeploy.export(module, tmp_path / "beyond.onnx", verify=False).path
    with pytest.raises(VerificationError, match="on 2 images .* beyond FP16's 65504"):
        evodeploy.build(path, precision="fp16", targets="sm89", dry_run=True)
    assert evodeploy.build(path, precision="bf16", targets="sm89", dry_run=True).engine.largest_activation == ""
    held = evodeploy.build(onnx, precision="fp16", targets="sm89", dry_run=True).engine.largest_activation
    assert any(held in line and "FP16 holds 65504" in line for line in logged)


@pytest.mark.parametrize("lacking", ["metadata", "ONNX Runtime"])
def test_a_range_that_cannot_be_measured_is_a_warning(onnx, monkeypatch, logged, lacking):
    if lacking == "metadata":
        model = read_onnx(onnx)
        del model.metadata_props[:]
        write_onnx(model, onnx)
    else:
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
    built = evodeploy.build(onnx, precision="fp16", targets="sm89", dry_run=True)
    assert (built.engine.precision, built.engine.largest_activation) == ("fp16", "")
    reason = {"metadata": "the ONNX carries no evodeploy metadata", "ONNX Runtime": "this needs onnxruntime"}[lacking]
    assert any(line.startswith(f"cannot check whether FP16 holds every activation: {reason}") for line in logged)


MOST = ("blocks.[1-5].*",)  # of the weights


def test_what_an_export_keeps_in_fp32_a_build_keeps(small_checkpoint, tmp_path):
    path = evodeploy.export(small_checkpoint, tmp_path / "x.onnx", precision="fp16", keep_fp32=MOST).path
    assert precision_of(read_onnx(path)) == "fp16"
    built = evodeploy.build(path, precision="fp16", targets="sm89", dry_run=True)
    assert (built.engine.precision, built.engine.kept_fp32) == ("fp16", {})  # nothing is converted again
    with pytest.raises(UsageError, match="an ONNX that is converted already keeps its FP32 nodes"):
        evodeploy.build(path, precision="fp16", keep_fp32=["Softmax"], targets="sm89", dry_run=True)


def test_an_export_in_int8_that_keeps_most_in_fp32_is_int8(small_checkpoint, tmp_path):
    Image.new("RGB", (70, 66), (200, 40, 90)).save(tmp_path / "plain.png")
    path = tmp_path / "x.onnx"
    evodeploy.export(small_checkpoint, path, precision="int8", images=tmp_path, keep_fp32=MOST, verify=False)
    assert describe(path)["precision"] == "int8"
    engine = evodeploy.build(path, precision="fp16", targets="sm89", dry_run=True).engine
    assert (engine.precision, engine.rest) == ("int8", "fp16")
    assert "on 2 images" in engine.largest_activation
