"""`evodeploy.build` as a program calls it; what it shares with the command is in tests/cli/test_build.py."""

from __future__ import annotations

import json
import shutil

import pytest
from graphs import restated

import evodeploy
from evodeploy.builder import decisions, engine
from evodeploy.engines.tensorrt.sidecar import Profile, read_sidecar
from evodeploy.errors import UsageError
from evodeploy.files import sha256


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
