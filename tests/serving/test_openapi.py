"""The samples of requests in the OpenAPI document, run as they are shown: a real server answers each with 200."""

from __future__ import annotations

import os
import shutil
import subprocess

import httpx
import pytest
from fake_engines import FakeEngine
from PIL import Image
from served import Direct

from evodeploy.engines.opener import open_engine
from evodeploy.serving.app import create_app
from evodeploy.serving.metrics import Metrics
from evodeploy.serving.settings import Limits
from evodeploy.specs import ElasticStage, ModelInfo


def samples(document):
    """Endpoint, label and line of each sample."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["x-codeSamples"], (method, path)
            for each in operation["x-codeSamples"]:
                yield f"{method.upper()} {path}", each["label"], each["source"]


@pytest.mark.parametrize("token", [None, "secret"])
def test_every_sample_is_answered_with_200(listening, small_elastic, tmp_path, token):
    if shutil.which("curl") is None:
        pytest.skip("here is no curl")
    (tmp_path / ".curlrc").write_text('silent\nwrite-out = "%{stderr}%{http_code} "\n')
    Image.new("RGB", (50, 40), "red").save(tmp_path / "cat.jpg")
    environment = os.environ | {"CURL_HOME": str(tmp_path), "EVODEPLOY_TOKEN": token or ""}
    with open_engine(small_elastic, "onnxruntime") as engine:
        backend = Direct(engine)
        app = create_app(lambda: backend, "a-b.c", Limits(), token, metrics=Metrics())
        address = f"http://{listening(app)}"
        found = list(samples(httpx.get(f"{address}/openapi.json").json()))
        assert len(found) == 16
        for endpoint, label, line in found:
            command = ["bash", "-o", "pipefail", "-c", line.replace("SERVER", address)]
            run = subprocess.run(
                command, cwd=tmp_path, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
            )
            assert set(run.stderr.split()) == {"200"}, (endpoint, label, line, run.stdout, run.stderr)
            if "Keeping" in label:
                assert '"keep_ratio": "0.5"' in run.stdout or '"keep_ratios":[0.5,0.5]' in run.stdout


def document(engine, name="small"):
    return create_app(lambda: Direct(engine), name, Limits()).openapi()


def test_samples_ask_an_elastic_model_alone_for_a_ratio_and_for_one_that_it_takes(engine):
    assert not any("keep_ratio" in line for _, _, line in samples(document(engine)))
    info = ModelInfo("x", 64, 8, 10, "stage", (0.2, 0.2), elastic=(ElasticStage(50, 5, 10), ElasticStage(64, 2, 32)))
    lines = [line for _, label, line in samples(document(FakeEngine(info))) if "Keeping" in label]
    assert len(lines) == 3
    assert all('"keep_ratio": 0.2}' in line or "keep_ratio=0.2'" in line for line in lines)


def test_a_model_without_classes_has_no_sample_that_asks_for_them():
    app = create_app(lambda: Direct(FakeEngine(ModelInfo("x", 64, 8, 0, "stage", (0.5, 0.5)))), "small", Limits())
    paths = app.openapi()["paths"]
    assert paths["/v1/predict"]["post"]["x-codeSamples"] == []
    assert paths["/v2/models/{model}/infer"]["post"]["x-codeSamples"]


def test_the_ratio_of_a_sample_is_taken_where_one_number_of_tokens_is():
    info = ModelInfo("x", 80, 8, 10, "stage", (0.291,), elastic=(ElasticStage(100, 29, 29),))
    lines = [line for _, label, line in samples(document(FakeEngine(info))) if "Keeping" in label]
    assert lines and all('"keep_ratio": 0.291}' in line or "keep_ratio=0.291'" in line for line in lines)


def test_a_sample_holds_names_of_an_artefact_as_words_alone(engine, tmp_path):
    """A name in an artefact from elsewhere is not run by the shell of a reader who copies the line."""
    hostile = FakeEngine(ModelInfo("x", 64, 8, 10, "stage", (0.5, 0.5)))
    backend = Direct(hostile)
    backend.inputs = (type(hostile.inputs[0])("'; touch hit; '$(touch hit)`touch hit`%s", "float32", (None, 3, 2, 2)),)
    app = create_app(lambda: backend, "small", Limits())
    line = next(line for endpoint, _, line in samples(app.openapi()) if endpoint.endswith("/infer"))
    shown = subprocess.run(["bash", "-c", line.split(" |\n")[0]], cwd=tmp_path, capture_output=True, text=True)
    assert "'; touch hit; '$(touch hit)`touch hit`%s" in shown.stdout
    assert list(tmp_path.iterdir()) == []


def test_without_its_model_the_document_has_no_samples_and_is_there(app):
    from evodeploy.serving.refusals import NotReadyError

    def gone():
        raise NotReadyError("another file")

    paths = create_app(gone, "small", Limits()).openapi()["paths"]
    assert "/v1/predict" in paths
    assert "x-codeSamples" not in str(paths)
