"""Requests of any kind to a whole service: an answer that is documented, counted once, and nothing held after it."""

from __future__ import annotations

import asyncio
import collections
import io
import json
import re
import socket
from pathlib import Path

import httpx
from fake_engines import FakeEngine
from fuzz.hunt import CHARACTERS, JSON, NUMBERS, WORDS, clean, effort, hunt, nearly, nearly_bytes
from hypothesis import strategies as st
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from evodeploy.serving.app import OPEN, create_app
from evodeploy.serving.gate import Room
from evodeploy.serving.metrics import Metrics
from evodeploy.serving.service import running
from evodeploy.serving.settings import Limits, Settings
from evodeploy.serving.worker import Worker
from evodeploy.specs import ElasticStage, ModelInfo

INFO = ModelInfo("m", 8, 4, 10, "stage", (0.5, 0.5), elastic=(ElasticStage(4, 1, 4), ElasticStage(4, 1, 4)))
LIMITS = Limits(body=8000, pixels=900, seconds=20.0, admitted=2)
TOKEN = b"Bearer secret"
POSTS = ["/v1/predict", "/v2/models/m/infer", "/v2/models/m/versions/1/infer"]
PATHS = ["/metrics", *POSTS, "/v2/models/m", *sorted(OPEN)]
ASKED = [("POST", path) for path in POSTS * 2] + [("GET", "/metrics")]
STRANGE = st.text(CHARACTERS, max_size=12).map(lambda text: f"/{text}")
ANSWERS = {200, 400, 401, 404, 405, 413, 422, 431}
TENSOR = {"name": "images", "datatype": "FP32", "shape": [1, 3, 8, 8], "data": [0] * 192}
INFER = {"inputs": [TENSOR], "outputs": [{"name": "logits"}], "parameters": {"keep_ratio": 0.5}}


def picture():
    file = io.BytesIO()
    Image.new("RGB", (20, 16), "red").save(file, "PNG")
    return file.getvalue()


FORM = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n%s\r\n--b--\r\n' % picture()
BODIES = (
    nearly(INFER).map(lambda value: json.dumps(value).encode())
    | st.sampled_from([b"", picture(), FORM, json.dumps(INFER).encode()])
    | nearly_bytes(picture())
    | nearly_bytes(FORM)
    | JSON.map(lambda value: json.dumps(value).encode())
)
QUERIES = st.binary(max_size=30) | st.lists(
    st.tuples(
        st.sampled_from(["top", "keep_ratio", "least_keep_ratio"]) | WORDS,
        st.sampled_from(["0.5", "1", "nan", "-0", "1e999", "5"]) | NUMBERS.map(lambda value: str(value)[:60]) | WORDS,
    ),
    max_size=3,
).map(lambda pairs: "&".join(f"{name}={value}" for name, value in pairs).encode(errors="surrogatepass"))
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(
            [b"content-type", b"inference-header-content-length", b"authorization", b"host", b"accept", b"x"]
        ),
        st.sampled_from(
            [b"multipart/form-data; boundary=b", b"multipart/form-data", b"application/json", TOKEN, b"9" * 40]
        )
        | st.binary(max_size=30),
    ),
    max_size=2,
)
REQUESTS = st.fixed_dictionaries(
    {
        "asked": st.sampled_from(ASKED)
        | st.tuples(st.sampled_from(["GET", "POST", "HEAD", "PUT"]) | WORDS, st.sampled_from(PATHS) | STRANGE),
        "query": QUERIES,
        "headers": HEADERS,
        "token": st.sampled_from([*[TOKEN] * 8, b"Bearer Secret", None]),
        "body": BODIES,
        "length": st.sampled_from([*["right"] * 6, "chunked"]) | st.binary(max_size=8),
        "cut": st.integers(0, 8001),
        "more": st.sampled_from([*[(0, 0)] * 12, (8001, 0), (0, 16500)]),  # bytes of the body and of a header
    }
)


class Service:
    """An application, and one answer at a time from it."""

    def __init__(self):
        self.metrics, self.room, self.loop = Metrics(), Room(LIMITS), asyncio.new_event_loop()
        self.worker = Worker(FakeEngine(INFO), Settings(Path("m.onnx"), max_batch=2, max_wait=0), self.metrics.ran)
        self.app = create_app(lambda: self.worker, "m", LIMITS, "secret", None, self.metrics, self.room)
        self.statuses = collections.Counter()

    def close(self):
        self.worker.close()
        self.loop.close()

    def answer(self, case):
        """Status and body."""
        method, path = case["asked"]
        content = body_of(case)
        scope = {
            "type": "http", "http_version": "1.1", "method": method, "path": path, "scheme": "http",
            "raw_path": path.encode(errors="surrogatepass"), "query_string": case["query"], "root_path": "",
            "headers": headers_of(case), "client": ("127.0.0.1", 9), "server": ("127.0.0.1", 80),
        }  # fmt: skip
        parts = [content[: case["cut"]], content[case["cut"] :]]
        given = [{"type": "http.request", "body": part, "more_body": not last} for last, part in enumerate(parts)]
        sent = []

        async def receive():
            return given.pop(0) if given else await self.loop.create_future()  # the client stays

        async def send(message):
            sent.append(message)

        self.loop.run_until_complete(self.app(scope, receive, send))
        assert [each["type"] for each in sent].count("http.response.start") == 1
        self.statuses[sent[0]["status"]] += 1
        return sent[0]["status"], b"".join(each.get("body", b"") for each in sent[1:])


def headers_of(case):
    lengths = {
        "right": [(b"content-length", b"%d" % len(body_of(case)))],
        "chunked": [(b"transfer-encoding", b"chunked")],
    }
    length = lengths[case["length"]] if isinstance(case["length"], str) else [(b"content-length", case["length"])]
    token = [] if case["token"] is None else [(b"authorization", case["token"])]
    return [*case["headers"], *length, *token, (b"x", bytes(case["more"][1]))]


def body_of(case):
    return case["body"] + bytes(case["more"][0])


@effort
def test_requests_of_any_kind(seconds):
    service = Service()

    def check(case):
        (method, path), (status, body) = case["asked"], service.answer(case)
        assert status in ANSWERS, body
        if status >= 400 and method != "HEAD":
            assert clean(json.loads(body)["error"], 2000)
        given = [value for name, value in headers_of(case) if name == b"authorization"]
        if path not in OPEN and given != [TOKEN]:
            assert status in (400, 401, 431)
        if len(body_of(case)) > LIMITS.body and path not in {*OPEN, "/metrics"}:
            assert status in (400, 401, 413, 431)
        if path == "/metrics" and status == 200:
            assert method in ("GET", "HEAD")
        assert service.room.admitted == 0
        assert not service.room.arrivals._here
        assert service.metrics.ongoing._value.get() == 0

    hunt(REQUESTS, check, seconds)
    counted = {}
    for family in text_string_to_metric_families(service.metrics.text().decode()):
        for sample in family.samples:
            if sample.name == "evodeploy_requests_total":
                counted[int(sample.labels["status"])] = sample.value
    assert counted == service.statuses
    service.close()


VALID = b"POST /v1/predict?keep_ratio=0.5 HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b"
METRICS = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@effort
def test_bytes_of_any_kind(small_elastic, seconds):
    data = VALID % (len(picture()), picture())
    with running(Settings(small_elastic, port=0, limits=Limits(body=8000, admitted=1))) as service:
        host, port = service.address.removeprefix("http://").split(":")

        def check(sent):
            with socket.create_connection((host, int(port)), timeout=60) as client:
                client.sendall(sent)
                client.settimeout(0.05)  # what comes later is for a client that has left
                try:
                    got = client.recv(1 << 16)
                except (TimeoutError, ConnectionError):
                    return
            assert got == b"" or int(re.match(rb"HTTP/1.1 (\d+) ", got)[1]) in ANSWERS | {421, 429}

        hunt(nearly_bytes(data) | nearly_bytes(METRICS) | nearly_bytes(METRICS + data) | st.binary(), check, seconds)
        ongoing = "evodeploy_requests_ongoing 1.0\n"  # the one that asks
        while ongoing not in httpx.get(service.metrics).text:
            pass
        assert httpx.post(f"{service.address}/v1/predict", content=picture()).status_code == 200
