"""A deploy file: what it says is done, what is given explicitly comes first, and hostile ones are refused."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import evodeploy
from evodeploy.artefacts import fingerprint
from evodeploy.benchmark import pipeline
from evodeploy.engines.deploy_file import DeployFile, artefact_of, read_deploy_file
from evodeploy.errors import BadFileError, UsageError
from evodeploy.files import sha256
from evodeploy.kinds import DEPLOY
from evodeploy.specs import EngineOptions


@pytest.fixture
def deployed(small_onnx, tmp_path):
    """A deploy file with its artefact below its folder."""
    (tmp_path / "models").mkdir()
    onnx = tmp_path / "models" / "chosen.onnx"
    shutil.copy(small_onnx, onnx)
    measured = {"processor": 'a "fast"\x7f one', "images_per_second": 1e-7}
    stated = DeployFile(1, "models/chosen.onnx", sha256(onnx), "openvino", "bf16", measured=measured)
    path = tmp_path / "deploy.toml"
    path.write_text(stated.to_toml(), encoding="utf-8")
    return path


def test_what_is_written_is_read(deployed):
    stated = read_deploy_file(deployed)
    assert (stated.engine, stated.precision, stated.device, stated.tf32) == ("openvino", "bf16", None, None)
    assert stated.measured == {"processor": 'a "fast"\\x7f one', "images_per_second": 1e-7}
    assert DEPLOY.is_kind_of(deployed)
    assert artefact_of(deployed) == deployed.parent / "models" / "chosen.onnx"


def test_it_decides_what_nobody_else_does(deployed, small_images):
    opened = []
    with evodeploy.load(str(deployed)) as predictor:
        assert predictor.engine.name == "openvino"
        opened.append(predictor.engine.run(small_images)["logits"])
    with evodeploy.open_engine(deployed, options=EngineOptions(precision="fp32")) as engine:
        opened.append(engine.run(small_images)["logits"])
    with evodeploy.open_engine(deployed.parent / "models/chosen.onnx", "openvino") as engine:
        assert np.array_equal(engine.run(small_images)["logits"], opened[1])
    assert not np.array_equal(*opened)  # BF16 rounds
    with pytest.raises(UsageError, match=r"deploy\.toml states precision, which the engine 'onnxruntime' has no"):
        evodeploy.open_engine(deployed, "onnxruntime")
    with pytest.raises(UsageError, match=r"deploy\.toml: the engine 'tensorrt' does not run .*chosen\.onnx"):
        evodeploy.open_engine(deployed, "tensorrt")


def test_verify_judges_it_by_the_precision_that_it_states(deployed, small_onnx):
    for pair in ((small_onnx, deployed), (deployed, small_onnx)):
        assert evodeploy.verify(*pair, count=2).tolerance.reason.startswith("BF16")


def test_a_bench_compares_what_it_states_with_pytorch(deployed, monkeypatch):
    asked = []

    def row_specs_of(subject, engines, precisions, *others):
        asked.append((subject.onnx[0].name, engines, precisions))
        raise UsageError("that is all to be seen")

    monkeypatch.setattr(pipeline, "row_specs_of", row_specs_of)
    for options in ({}, {"engines": ["onnxruntime"], "precisions": ["fp32"]}):
        with pytest.raises(UsageError, match="that is all"):
            evodeploy.bench(deployed, device="cpu", **options)
    assert asked == [
        ("chosen.onnx", ("torch", "torch-compile", "openvino"), ("fp32", "bf16")),
        ("chosen.onnx", ["onnxruntime"], ["fp32"]),
    ]


def test_a_service_knows_its_artefact_by_its_checksum_too(deployed):
    names = [name for name, digest in fingerprint(deployed) if digest]
    assert names == ["deploy.toml", "models/chosen.onnx"]


def test_another_artefact_in_its_place_is_refused(deployed):
    onnx = artefact_of(deployed)
    onnx.write_bytes(onnx.read_bytes() + b"\x00")
    with pytest.raises(BadFileError, match=r"chosen\.onnx is not the file that .*deploy\.toml was written for"):
        evodeploy.open_engine(deployed)
    onnx.unlink()
    with pytest.raises(UsageError, match=r"chosen\.onnx does not exist"):
        evodeploy.open_engine(deployed)


FACTS = {"schema": 1, "artefact": "a.onnx", "sha256": "0" * 64, "engine": "openvino"}


def toml(**changes):
    facts = {**FACTS, **changes}
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in facts.items() if value is not None).encode()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\xff", "codec can't decode"),
        (b"schema", "Expected '='"),
        (b"a = " + b"[" * 50_000, "recursion"),
        (b"a = " + b"1" * 50_000, "digit"),
        (b" " * 70_000, "expected at most 65536"),
        (b"schema = 1\n", "artefact is missing"),
        (toml(schema=2), "schema is 2"),
        (toml(artefact="/etc/passwd"), "expected a relative path below the file's folder"),
        (toml(artefact="../a.onnx"), "expected a relative path"),
        (toml(artefact="models/../../a.onnx"), "expected a relative path"),
        (toml(artefact="deploy.toml"), "cannot infer what deploy.toml is"),
        (toml(artefact=3), "artefact is 3"),
        (toml(sha256="0"), "expected a SHA-256"),
        (toml(engine=""), "expected text of 1 to 100"),
        (toml(precision="int8"), "expected fp32 or fp16 or bf16"),
        (toml(engin="openvino"), "this version does not know it"),
        (b"measured = nan\n" + toml(), "measured is nan"),
        (b"cuda_graph = 1979-05-27\n" + toml(), "cuda_graph is 1979-05-27"),
    ],
)
def test_a_hostile_file_is_refused(tmp_path, content, told):
    path = tmp_path / "deploy.toml"
    path.write_bytes(content)
    with pytest.raises(BadFileError, match="deploy.toml") as raised:
        evodeploy.open_engine(path)
    assert told.lower() in str(raised.value).lower()


def test_false_and_zero_are_written_and_read(tmp_path):
    stated = DeployFile(1, "a.onnx", "0" * 64, "onnxruntime-cuda", tf32=False, measured={"top1": 0.0})
    path = tmp_path / "deploy.toml"
    path.write_text(stated.to_toml(), encoding="utf-8")
    assert read_deploy_file(path) == stated
