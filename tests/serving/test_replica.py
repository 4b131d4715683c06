"""A replica that finds another file in its artefact's place. One on Ray: test_ray_serve.py."""

from __future__ import annotations

import shutil
import types
from pathlib import Path

import onnx
import pytest
from fastapi.testclient import TestClient
from graphs import sharded

from evodeploy.artefacts import fingerprint
from evodeploy.files import sha256
from evodeploy.onnx_files import external_data
from evodeploy.serving.app import create_app
from evodeploy.serving.replica import Replica, _refusal, ready
from evodeploy.serving.settings import Limits, Settings


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"another", "is not the file that the service was started with"), (None, "cannot be read any more")],
)
def test_another_file_is_not_served_and_every_answer_says_so(small_onnx, tmp_path, content, reason):
    artefact = tmp_path / "model.onnx"
    if content is not None:
        artefact.write_bytes(content)
    replica = Replica(Settings(artefact, "small"), (("model.onnx", sha256(small_onnx)),))
    with TestClient(create_app(lambda: ready(replica), "small", Limits())) as client:
        for answer in (
            client.get("/v2/health/ready"),
            client.get("/v2/models/small"),
            client.post("/v1/predict", content=b""),
        ):
            assert answer.status_code == 503
            assert reason in answer.json()["error"]
            assert "model.onnx" in answer.json()["error"]
        assert client.get("/v2/health/live").status_code == 200


def test_a_file_that_is_replaced_while_it_is_opened_is_not_served(small_onnx, tmp_path, monkeypatch):
    artefact, closed = Path(shutil.copy(small_onnx, tmp_path / "model.onnx")), []

    def opened(settings):
        artefact.write_bytes(b"another")
        return types.SimpleNamespace(close=lambda: closed.append(settings))

    monkeypatch.setattr("evodeploy.serving.replica.open_served", opened)
    replica = Replica(Settings(artefact, "small"), fingerprint(artefact))
    assert "is not the file that the service was started with" in replica.refusal
    assert len(closed) == 1


def described(small_checkpoint, folder):
    """The small model as a hub would keep it, without a description yet."""
    path = folder / "pytorch_model.bin"
    shutil.copy(small_checkpoint, path)
    return path, folder / "config.json"


def planned(small_onnx, folder):
    """A plan by its record."""
    (folder / "model.engine").write_bytes(b"a plan")
    (folder / "model.engine.json").write_text("{}")
    return folder / "model.engine", folder / "model.engine.json"


@pytest.mark.parametrize("kind", [sharded, described, planned])
def test_what_belongs_to_an_artefact_is_checked_too(small_onnx, small_checkpoint, tmp_path, kind):
    path, other = kind(small_checkpoint if kind is described else small_onnx, tmp_path)
    started_with = fingerprint(path)
    assert other.name in dict(started_with)
    assert _refusal(path, started_with) is None
    other.write_bytes(b"another")
    refusal = _refusal(path, started_with)
    assert f"{other} is not the file that the service was started with" in refusal
    assert ("expected no file" in refusal) == (kind is described)
    other.unlink()
    assert (_refusal(path, started_with) is None) == (kind is described)


def test_external_data_is_found_as_onnx_finds_it_and_nothing_outside_of_the_folder(small_onnx, tmp_path):
    (tmp_path / "below").mkdir()
    long = "below/" + "w" * 180
    for name in (long, "w.bin"):
        onnx.save(onnx.load(small_onnx), tmp_path / "m.onnx", save_as_external_data=True, location=name)
        assert external_data(tmp_path / "m.onnx") == (name,)
    model = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    large = [tensor for tensor in model.graph.initializer if tensor.external_data]
    for tensor, name in zip(large, ("/etc/passwd", "../x", "a\0b"), strict=False):
        tensor.external_data[0].value = name
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert external_data(tmp_path / "m.onnx") == ("w.bin",)
    assert external_data(small_onnx) == ()
