"""A replica that finds another file in its artefact's place. One on Ray: test_service.py."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from evodeploy.files import sha256
from evodeploy.serving.app import create_app
from evodeploy.serving.replica import Replica, ready
from evodeploy.serving.settings import Limits, Settings


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"another", "is not the file that the service was started with"),
        (None, "cannot be read any more"),
    ],
)
def test_another_file_is_not_served_and_every_answer_says_so(small_onnx, tmp_path, content, reason):
    artefact = tmp_path / "model.onnx"
    if content is not None:
        artefact.write_bytes(content)
    replica = Replica(Settings(artefact, sha256(small_onnx), "small"))
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
