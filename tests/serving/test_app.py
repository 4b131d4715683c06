"""The endpoints on a real engine, without Ray."""

from __future__ import annotations

import concurrent.futures
import io
import json
import threading
import time

import numpy as np
import pytest
import schemathesis
import tritonclient.http
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from PIL import Image
from schemathesis.specs.openapi import checks as openapi_checks

import evodeploy
from evodeploy import preprocess
from evodeploy.engines.base import run_all
from evodeploy.serving import images, pages
from evodeploy.serving.backend import Answer

CHECKS = [
    schemathesis.checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.response_schema_conformance,
]
GENERATOR = np.random.default_rng(8)


def picture(kind="PNG", size=(90, 70)):
    file = io.BytesIO()
    Image.fromarray(GENERATOR.integers(0, 256, (*size[::-1], 3), np.uint8)).save(file, kind)
    return file.getvalue()


@pytest.fixture
def client(app):
    with TestClient(app(), raise_server_exceptions=False) as opened:
        yield opened


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_an_image_gets_what_a_predictor_says_of_it(client, small_onnx, kind):
    data = picture(kind)
    answer = client.post("/v1/predict?top=3", content=data)
    assert answer.status_code == 200
    with evodeploy.load(small_onnx, "onnxruntime") as predictor:
        expected = predictor.predict(data, top=3)
    assert [label["index"] for label in answer.json()["labels"]] == [label.index for label in expected.labels]
    assert [label["probability"] for label in answer.json()["labels"]] == pytest.approx(
        [label.probability for label in expected.labels]
    )
    selections = answer.json()["selections"]
    assert [each["kept"] for each in selections] == [sorted(kept) for kept in expected.kept]
    assert [each["side"] for each in selections] == [8, 8]


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("/v1/predict", b"", "not a readable image"),
        ("/v1/predict", b"no image", "not a readable image"),
        ("/v1/predict", picture()[:200], "not a readable image"),
        ("/v1/predict?top=0", picture(), "top is 0, expected 1 or more"),
        ("/v1/predict?top=11", picture(), "top is 11, but evo_deit_test has 10 classes"),
        ("/v2/models/small/infer", b"{", "not JSON"),
    ],
)
def test_what_is_wrong_with_a_request_is_said(client, path, content, message):
    answer = client.post(path, content=content)
    assert answer.status_code == 400
    assert message in answer.json()["error"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("POST", "/v1/predict?keep_ration=0.5"), "expected top, keep_ratio, least_keep_ratio"),
        (("POST", "/v2/models/small/infer?keep_ratio=0.5"), "there are none here"),
        (("GET", "/v2/models/small?x"), "there are none here"),
    ],
)
def test_a_query_parameter_that_is_not_known_is_refused(client, asked, message):
    answer = client.request(*asked, content=picture() if asked[0] == "POST" else b"")
    name = asked[1].partition("?")[2].partition("=")[0]
    assert answer.status_code == 400
    assert answer.json() == {"error": f"the query parameter '{name}' is not known: {message}"}


@pytest.mark.parametrize(
    "path", [*sorted(pages.PATHS), "/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/small", "/openapi.json"]
)
def test_head_has_the_headers_of_get_and_no_body(client, path):
    got, head = client.get(path), client.head(path)
    assert (head.status_code, head.content, dict(head.headers)) == (200, b"", dict(got.headers))
    assert int(head.headers["content-length"]) == len(got.content)


def test_head_of_what_takes_a_body_is_refused(client):
    answer = client.head("/v1/predict")
    assert (answer.status_code, answer.content, answer.headers["allow"]) == (405, b"", "POST")


@pytest.mark.parametrize(
    "changes", [{"name": "\ud800"}, {"datatype": "\ud800"}, {"parameters": {"binary_data_size": "\ud800"}}]
)
def test_half_of_a_character_in_a_request_is_said_as_an_escape(client, changes):
    given = {"name": "images", "datatype": "FP32", "shape": [1, 3, 64, 64], **changes}
    answer = client.post("/v2/models/small/infer", content=json.dumps({"inputs": [given]}))
    assert answer.status_code == 400
    assert r"\ud800" in answer.json()["error"]


def test_a_picture_that_cannot_be_prepared_is_the_fault_of_the_request(client, monkeypatch):
    def fail(image, info):
        raise MemoryError

    monkeypatch.setattr(preprocess, "prepare", fail)
    answer = client.post("/v1/predict", content=picture())
    assert (answer.status_code, list(answer.json())) == (400, ["error"])


def test_a_form_may_bring_the_image(client):
    data = picture()
    expected = client.post("/v1/predict", content=data).json()
    assert client.post("/v1/predict", files={"image": ("it.png", data, "image/png")}).json() == expected
    body = b'--x\r\nContent-Disposition: form-data; name="image"; filename="it.png"\r\n\r\n' + data + b"\r\n--x--\r\n"
    capital = {"content-type": "Multipart/Form-Data; boundary=x"}
    assert client.post("/v1/predict", content=body, headers=capital).json() == expected
    text = b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\ntext\r\n'
    both = body.replace(b"--x--", text + b"--x--")
    assert client.post("/v1/predict", content=both, headers=capital).json() == expected
    for wrong in ({"files": [("a", data), ("b", data)]}, {"files": {"a": ("", "text")}}):
        refused = client.post("/v1/predict", **wrong)
        assert (refused.status_code, list(refused.json())) == (400, ["error"])
    refused = client.post("/v1/predict", content=b"--x", headers={"content-type": "multipart/form-data"})
    assert (refused.status_code, list(refused.json())) == (400, ["error"])


@pytest.mark.parametrize("charset", ["utf-8", "undefined", '"undefined"', "punycode"])
def test_the_charset_of_a_form_does_not_matter(client, charset):
    """These codecs of Python fail with other errors than most, or take minutes for a long text."""
    head = b'--x\r\nContent-Disposition: form-data; name="note"\r\n\r\n-%s\r\n' % (b"a" * 100)
    body = head + b'--x\r\nContent-Disposition: form-data; name="a.b"; filename="a.b"\r\n\r\n'
    for kind in (
        f"multipart/form-data; boundary=x; charset={charset}",
        f"multipart/form-data;Charset ={charset};boundary=x",
    ):
        answer = client.post("/v1/predict", content=body + picture() + b"\r\n--x--\r\n", headers={"content-type": kind})
        assert answer.status_code == 200, answer.text


def test_forms_are_parsed_outside_the_event_loop(client, monkeypatch):
    threads = []

    class Parser(images.MultiPartParser):
        def on_headers_finished(self):
            threads.append(threading.current_thread().name)
            super().on_headers_finished()

    monkeypatch.setattr(images, "MultiPartParser", Parser)
    large = picture(size=(900, 800))
    assert len(large) > Parser.spool_max_size  # the parser then writes to a file, in a further thread
    assert client.post("/v1/predict", files={"image": ("it.png", large, "image/png")}).status_code == 200
    assert [name.partition("_")[0] for name in threads] == ["evodeploy-prepare"]


def test_every_refusal_has_its_reason_as_error(client):
    for path, status, reason in (
        ("/v1/predict?top=x", 422, "query top: "),
        (f"/v1/predict?top={'9' * 5000}", 422, "query top: "),
        ("/v1/none", 404, "Not Found"),
        ("/v2", 405, "Method Not Allowed"),
        ("/v2/models/small/versions/2/infer", 404, "no version '2' of 'small' here: expected '1'"),
        ("/v2/models/other/versions/1/infer", 404, "no model 'other' here: expected 'small'"),
        (f"/v2/models/{'x' * 5000}/infer", 404, f"no model '{'x' * 59}…' here"),
        (f"/v2/models/small/versions/{'9' * 5000}/infer", 404, f"no version '{'9' * 59}…' of 'small' here"),
        ("/v2/models/%1b%5b31m/infer", 404, r"no model '\x1b[31m' here"),
        ("/v2/models/%00/infer", 404, r"no model '\x00' here"),
        ("/v2/models/..%2f..%2fetc%2fpasswd", 404, "Not Found"),
        ("/v1/predict?top=1e3", 422, "query top: "),
        ("/v1/predict?top=%C2%B2", 422, "query top: "),
        ("/v1/predict?top=", 422, "query top: "),
        ("//v1//predict", 404, "Not Found"),
        ("/openapi.json", 405, "Method Not Allowed"),
    ):
        answer = client.post(path, content=picture())
        assert answer.status_code == status, path
        assert reason in answer.json()["error"]


@pytest.mark.parametrize("values", [["2", "2"], ["2", "1"], ["+2"], ["0x2"], [" "], ["2,2"]])
def test_a_length_of_the_json_that_is_none_or_not_the_only_one_is_refused(client, values):
    headers = [("inference-header-content-length", value) for value in values]
    answer = client.post("/v2/models/small/infer", content=b"{}", headers=headers)
    assert answer.status_code == 400
    assert "expected a number of bytes of the body" in answer.json()["error"]


FORM = {"content-type": "multipart/form-data; boundary=x"}


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (b"--x\r\n\r\n\r\n--x--", FORM),
        (b"--x", {"content-type": "multipart/form-data; boundary=" + "x" * 300}),
        (b"a=b&" * 5000, {"content-type": "application/x-www-form-urlencoded"}),
        (b"\x1f\x8b" + b"x" * 100, {"content-encoding": "gzip"}),
        (b"<svg onload=alert(1)>", {"content-type": "image/svg+xml"}),
        (b"{}", {"content-type": "application/json"}),
        (b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\ntext\r\n--x--\r\n', FORM),
    ],
)
def test_bodies_that_are_no_image_are_refused(client, content, headers):
    answer = client.post("/v1/predict", content=content, headers=headers)
    assert (answer.status_code, list(answer.json())) == (400, ["error"])
    assert len(answer.json()["error"]) < 200


def test_outputs_that_are_no_numbers_are_an_error_and_no_broken_json(client, backend, monkeypatch):
    async def run(images, asked):
        outputs = run_all(backend._engine, images)
        return Answer(outputs | {"logits": np.full_like(outputs["logits"], np.nan)}, (0.5, 0.5))

    monkeypatch.setattr(backend, "run", run)
    answer = client.post("/v1/predict", content=picture())
    assert answer.status_code == 500, answer.json()
    assert "is not finite" in answer.json()["error"]
    zeros = {"name": "images", "datatype": "FP32", "shape": [1, 3, 64, 64], "data": [0] * 3 * 64 * 64}
    answer = client.post("/v2/models/small/infer", json={"inputs": [zeros]})
    assert answer.status_code == 500
    assert "'logits' is not finite, which JSON cannot express: ask for it in binary" in answer.json()["error"]
    asked = {"inputs": [zeros], "outputs": [{"name": "logits", "parameters": {"binary_data": True}}]}
    assert client.post("/v2/models/small/infer", json=asked).status_code == 200


def test_tritons_client_is_an_ordinary_client(app, listening, engine):
    images = GENERATOR.standard_normal((3, 3, 64, 64), dtype=np.float32)
    expected = engine.run(images)
    with tritonclient.http.InferenceServerClient(listening(app())) as triton:
        assert triton.is_server_live()
        assert triton.is_server_ready()
        assert triton.is_model_ready("small")
        assert triton.get_server_metadata()["extensions"] == ["binary_tensor_data"]
        assert triton.get_model_metadata("small")["inputs"][0]["shape"] == [-1, 3, 64, 64]
        for binary in (True, False):
            given = tritonclient.http.InferInput("images", images.shape, "FP32")
            given.set_data_from_numpy(images, binary_data=binary)
            everything = triton.infer("small", [given], request_id="7")
            assert everything.get_response()["id"] == "7"
            for name, value in expected.items():
                np.testing.assert_array_equal(everything.as_numpy(name), value)
            wanted = [tritonclient.http.InferRequestedOutput("selected_1", binary_data=binary)]
            one = triton.infer("small", [given], outputs=wanted)
            np.testing.assert_array_equal(one.as_numpy("selected_1"), expected["selected_1"])
            assert one.as_numpy("logits") is None
        assert triton.is_model_ready("small", "1")
        np.testing.assert_array_equal(
            triton.infer("small", [given], model_version="1").as_numpy("logits"), expected["logits"]
        )
        with pytest.raises(tritonclient.utils.InferenceServerException, match="there is no model 'other' here"):
            triton.get_model_metadata("other")


def test_a_body_beyond_the_limit_is_refused_whether_or_not_it_says_so(app):
    with TestClient(app(body=1000)) as client:
        assert client.post("/v1/predict", content=b"x" * 1001).status_code == 413
        parts = (b"x" * 100 for _ in range(11))  # chunked: without a length
        assert client.post("/v1/predict", content=parts).status_code == 413
        assert client.post("/v1/predict", content=b"x" * 1000).status_code == 400
        assert client.post("/v1/predict", content=b"", headers={"content-length": "-1"}).status_code == 413


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(app):
    bomb = io.BytesIO()
    Image.new("1", (5000, 5000)).save(bomb, "PNG")
    with TestClient(app(pixels=1_000_000)) as client:
        answer = client.post("/v1/predict", content=bomb.getvalue())
    assert answer.status_code == 400
    assert "has 25000000 pixels, expected 1000000 at most" in answer.json()["error"]


def test_more_requests_than_are_admitted_get_429_and_may_come_again(app, backend, listening):
    import httpx

    address = f"http://{listening(app(admitted=2))}"
    backend.gate.clear()
    with httpx.Client(timeout=20) as client, concurrent.futures.ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(client.post, f"{address}/v1/predict", content=picture()) for _ in range(2)]
        while backend.arrived < 2:
            time.sleep(0.01)
        refused = client.post(f"{address}/v1/predict", content=b"")
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "1"
        assert client.get(f"{address}/v2/health/ready").status_code == 200
        backend.gate.set()
        assert [each.result().status_code for each in waiting] == [200, 200]
        assert client.post(f"{address}/v1/predict", content=picture()).status_code == 200


def test_a_body_that_dribbles_in_gets_504(app, listening):
    import socket

    host, port = listening(app(seconds=0.3)).split(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nx")
        assert client.recv(100).startswith(b"HTTP/1.1 504")


def test_formats_that_start_programs_are_not_decoded(client, monkeypatch):
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("Ghostscript was started"))
    eps = io.BytesIO()
    Image.new("RGB", (8, 8)).save(eps, "EPS")
    assert client.post("/v1/predict", content=eps.getvalue()).status_code == 400


def test_what_takes_too_long_gets_504(app, backend):
    backend.gate.clear()
    with TestClient(app(seconds=0.05)) as client:
        assert client.post("/v1/predict", content=picture()).status_code == 504


def test_decoding_counts_for_the_time_of_an_answer(app, monkeypatch):
    asked = threading.Event()

    def slow(*given):
        asked.wait(5)
        return preprocess.prepare_upload(*given)

    monkeypatch.setattr(images, "prepare_upload", slow)
    with TestClient(app(seconds=0.05)) as client:
        assert client.post("/v1/predict", content=picture()).status_code == 504
        asked.set()


def test_a_token_is_asked_for_everywhere_but_at_health_and_page(app):
    with TestClient(app(token="secret")) as client:
        for path in ("/v2", "/v2/models/small"):
            assert client.get(path).status_code == 401
            assert client.get(path, headers={"Authorization": "Bearer guess"}).status_code == 401
            assert client.get(path, headers={"Authorization": "Bearer secret"}).status_code == 200
        assert client.post("/v1/predict", content=picture()).headers["www-authenticate"] == "Bearer"
        for path in (*pages.PATHS, "/v2/health/live", "/v2/health/ready"):
            assert client.get(path).status_code == 200


def test_the_page_needs_nothing_from_elsewhere(client):
    page = client.get("/")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    for path in pages.PATHS:
        text = client.get(path).text
        assert "http://" not in text
        assert "https://" not in text


def test_its_sample_is_a_small_picture_that_the_endpoint_takes(client):
    sample = client.get("/sample.png")
    assert (sample.headers["content-type"], len(sample.content) < 4096) == ("image/png", True)
    assert client.post("/v1/predict", content=sample.content).status_code == 200


def test_no_path_of_a_request_is_opened(client):
    for path in ("/page/../settings.py", "/..%2fsettings.py", "/v2/models/..%2f..%2fetc%2fpasswd"):
        assert client.get(path).status_code == 404


def test_fuzzed_requests_get_answers_that_the_document_describes(app):
    schema = schemathesis.openapi.from_asgi("/openapi.json", app())
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) == 10
    for operation in operations:

        @given(case=operation.as_strategy())
        @settings(max_examples=60, deadline=None, database=None, derandomize=True, suppress_health_check=HealthCheck)
        def answered(case):
            response = case.call()
            case.validate_response(response, checks=CHECKS)

        answered()
