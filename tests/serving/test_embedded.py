"""A service in one process, without Ray: what it answers, what it refuses, and how it ends."""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import os
import signal
import socket
import ssl
import threading
import time
import warnings

import httpx
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
import tritonclient.utils
from processes import is_alive, listening, processes_below
from served import NAME, PICTURE, Load, logits, started, value, wait_until

import evodeploy
from evodeploy.engines.opener import open_engine
from evodeploy.errors import RuntimeFailedError, UsageError
from evodeploy.preprocess import prepare_upload
from evodeploy.serving import embedded, gate, images
from evodeploy.serving.budget import Budget
from evodeploy.serving.ports import listening as listening_on
from evodeploy.serving.service import running
from evodeploy.serving.settings import Limits, Settings


def test_it_answers_on_one_port_and_ends_in_order(serve, small_onnx, logged):
    images = np.random.default_rng(2).standard_normal((5, 3, 64, 64), dtype=np.float32)
    with serve() as service:
        place = service.address.removeprefix("http://")
        assert service.to_dict() == {
            "name": NAME,
            "artefact": str(small_onnx),
            "engine": "onnxruntime",
            "address": service.address,
            "metrics": f"{service.address}/metrics",
            "grpc": None,
        }
        with open_engine(small_onnx) as engine:
            np.testing.assert_allclose(logits(place, images), engine.run(images)["logits"], atol=1e-5)
        assert httpx.get(f"{service.address}/v2", headers={"Host": "evil.example"}).status_code == 421
        with pytest.raises(UsageError, match="cannot listen on port"), serve(port=int(place.split(":")[1])) as other:
            pytest.fail(f"{other} shares the port")
    assert any("answers; Prometheus metrics" in line for line in logged)
    with pytest.raises(httpx.ConnectError):
        httpx.get(service.address)


def test_requests_at_once_are_run_together_and_counted(serve, held):
    with serve(max_wait=0) as service, httpx.Client(base_url=service.address) as client:
        with concurrent.futures.ThreadPoolExecutor(5) as pool:
            asked = [pool.submit(httpx.post, f"{service.address}/v1/predict", content=PICTURE.read_bytes())]
            wait_until(lambda: held.arrived == 1)
            asked += [
                pool.submit(httpx.post, f"{service.address}/v1/predict", content=PICTURE.read_bytes()) for _ in "1234"
            ]
            wait_until(lambda: value(client, "evodeploy_requests_ongoing") == 6)  # and the one that asks
            time.sleep(0.1)  # for the four to be prepared
            held.set()
            assert {each.result().status_code for each in asked} == {200}
        assert client.post("/v1/predict", content=b"none").status_code == 400
        assert value(client, "evodeploy_requests_total", status="200") >= 5
        assert value(client, "evodeploy_requests_total", status="400") == 1
        assert value(client, "evodeploy_images_total") == 5
        assert value(client, "evodeploy_batch_images_bucket", le="1.0") == 1
        assert value(client, "evodeploy_batch_images_sum") == 5
        assert value(client, "evodeploy_run_seconds_count") == value(client, "evodeploy_batch_images_count")
        assert value(client, "evodeploy_request_seconds_count") == 5


def test_metrics_ask_for_the_token_and_are_there_when_too_many_requests_are(serve, held):
    with (
        serve(token="secret", limits=Limits(admitted=1)) as service,
        httpx.Client(base_url=service.address, headers={"Authorization": "Bearer secret"}) as client,
        concurrent.futures.ThreadPoolExecutor(1) as pool,
    ):
        assert httpx.get(service.metrics).status_code == 401
        first = pool.submit(client.post, "/v1/predict", content=PICTURE.read_bytes())
        wait_until(lambda: held.arrived == 1)
        assert client.post("/v1/predict", content=PICTURE.read_bytes()).status_code == 429
        assert value(client, "evodeploy_requests_total", status="429") == 1
        held.set()
        assert first.result().status_code == 200


def test_a_client_that_leaves_before_its_answer_is_counted_so_and_keeps_no_place(serve, held):
    with serve() as service, httpx.Client(base_url=service.address) as client:
        data = PICTURE.read_bytes()
        with asking(service, data, len(data)):
            wait_until(lambda: held.arrived == 1)
        wait_until(lambda: value(client, "evodeploy_requests_ongoing") == 1)  # the one that asks
        assert value(client, "evodeploy_requests_total", status="499") == 1
        held.set()


def test_clients_that_leave_have_no_more_images_decoded_at_once_than_are_admitted(serve, monkeypatch):
    begun, free = [], threading.Event()

    def prepare(*given):
        begun.append(given)
        assert free.wait(60)
        return prepare_upload(*given)

    monkeypatch.setattr(images, "prepare_upload", prepare)
    with serve(limits=Limits(admitted=2)) as service, httpx.Client(base_url=service.address) as client:
        data = PICTURE.read_bytes()
        for count in (1, 2):
            with asking(service, data, len(data)):  # it leaves at the end
                wait_until(lambda count=count: len(begun) == count)
            wait_until(lambda: value(client, "evodeploy_requests_ongoing") == 1)  # the one that asks
        assert client.post("/v1/predict", content=data).status_code == 429
        free.set()
        wait_until(lambda: client.post("/v1/predict", content=data).status_code == 200)


def asking(service, data, length):
    """A client that has sent these bytes of a body of this length."""
    host, port = service.address.removeprefix("http://").split(":")
    client = socket.create_connection((host, int(port)), timeout=60)
    client.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % length + data)
    return client


def test_a_request_that_was_begun_is_answered_before_it_ends(serve, held):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with serve() as service:
            asked = pool.submit(httpx.post, f"{service.address}/v1/predict", content=PICTURE.read_bytes(), timeout=60)
            wait_until(lambda: held.arrived == 1)
            threading.Timer(0.3, held.set).start()
        assert asked.result().status_code == 200


def test_a_request_that_never_ends_holds_it_no_longer_than_the_limit(serve):
    with serve(limits=Limits(seconds=0.5)) as service:
        client = asking(service, b"", 9)
    assert client.recv(4096)[:12] in (b"", b"HTTP/1.1 504", b"HTTP/1.1 503")
    client.close()


def test_a_body_that_still_comes_once_a_stop_may_take_no_longer_is_refused_in_json(serve):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        with serve(limits=Limits(seconds=2)) as service, httpx.Client(base_url=service.address) as other:
            client = asking(service, b"x", 100_000)
            wait_until(lambda: value(other, "evodeploy_requests_ongoing") == 2)  # and the one that asks
            answer = pool.submit(answered, client)
            pool.submit(drip, client, answer)  # else it is answered for its silence
        assert answer.result() == (503, {"error": "the service stops: ask another, or again"})
        client.close()


def answered(client):
    response = http.client.HTTPResponse(client)
    response.begin()
    return response.status, json.load(response)


def drip(client, answer):
    while not answer.done():
        client.sendall(b"x")
        time.sleep(0.05)


def test_a_header_without_an_end_is_not_taken(serve):
    with serve() as service:
        host, port = service.address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=60) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Large: " + b"x" * 70_000)
            assert client.recv(100).startswith(b"HTTP/1.1 431 ")


def test_as_many_images_are_prepared_at_once_as_cores_may_be_used_and_four_more(serve, monkeypatch):
    begun, free = [], threading.Event()

    def prepare(*given):
        begun.append(given)
        assert free.wait(60)
        return prepare_upload(*given)

    monkeypatch.setattr(gate, "usable_cores", lambda: 1)
    monkeypatch.setattr(images, "prepare_upload", prepare)
    with (
        serve() as service,
        httpx.Client(base_url=service.address) as client,
        concurrent.futures.ThreadPoolExecutor(9) as pool,
    ):
        url, data = f"{service.address}/v1/predict", PICTURE.read_bytes()
        asked = [pool.submit(httpx.post, url, content=data) for _ in range(9)]
        wait_until(lambda: value(client, "evodeploy_requests_ongoing") == 10 and len(begun) >= 5)
        time.sleep(0.1)  # for a sixth
        assert len(begun) == 5
        free.set()
        assert {each.result().status_code for each in asked} == {200}


def test_idle_connections_outlive_those_of_proxies(serve, monkeypatch):
    """nginx and load balancers keep theirs for 60 seconds: a request that meets a closed one would be answered 502."""
    made, config = [], embedded.uvicorn.Config
    monkeypatch.setattr(embedded.uvicorn, "Config", lambda *of, **more: made.append(config(*of, **more)) or made[-1])
    with serve():
        assert made[0].timeout_keep_alive > 60


def test_what_a_client_says_of_another_address_is_not_believed(serve, monkeypatch):
    seen = []

    class Recording(embedded.create_app("x", "x", Limits()).__class__):
        async def __call__(self, scope, receive, send):
            seen.append((scope["client"][0], scope["scheme"]))
            await super().__call__(scope, receive, send)

    monkeypatch.setattr("evodeploy.serving.app.FastAPI", Recording)
    forwarded = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}
    with serve() as service:
        assert httpx.get(f"{service.address}/v2/health/live", headers=forwarded).status_code == 200
    assert seen == [("127.0.0.1", "http")]


def test_an_elastic_artefact_holds_a_budget_and_answers_as_it_does_at_that_ratio(small_elastic):
    settings = Settings(small_elastic, port=0, max_batch=2, budget=Budget(60.0, 0.25))
    with running(settings) as service, httpx.Client(base_url=service.address) as client:
        idle = client.post("/v1/predict", content=PICTURE.read_bytes()).json()
        fewer = client.post("/v1/predict?keep_ratio=0.25", content=PICTURE.read_bytes()).json()
        assert idle["keep_ratios"] == [1.0, 1.0]
        assert [len(each["kept"]) for each in fewer["selections"]] == [16, 16]
        with evodeploy.load(small_elastic) as predictor:
            expected = predictor.predict(PICTURE, keep_ratio=0.25)
        assert fewer["labels"][0]["index"] == expected.label.index
        assert fewer["labels"][0]["probability"] == pytest.approx(expected.label.probability, abs=1e-5)
        assert value(client, "evodeploy_keep_ratio_bucket", le="0.25") == 1


SIGNALS = {"group": signal.SIGTERM, "main": signal.SIGTERM, "interrupt": signal.SIGINT}


@pytest.mark.parametrize("to", ["group", pytest.param("main", marks=pytest.mark.slow), "interrupt"])
def test_signals_end_the_command_in_order(small_onnx, to):
    process = started("serve", small_onnx, "--port", "0", *(["--grpc-port", "0"] if to == "group" else []))
    try:
        *_, grpc, address = process.stdout.readline().split()
        addresses = [address, grpc.rstrip(",")] if to == "group" else [address]
        if to == "group":
            refused_for_compression(addresses[1])  # which the log says nothing of: else any client fills it
        below = processes_below(process.pid)
        ports = {int(each.rpartition(":")[2]) for each in addresses}
        assert {port for _, _, port in listening(process.pid)} == ports
        with Load(address, threads=4) as load:
            wait_until(lambda: load.answers[200] > 4)
            (os.kill if to == "main" else os.killpg)(process.pid, SIGNALS[to])
            wait_until(lambda: load.answers["ConnectError"])
        _, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert err.splitlines() == [
        "running batches of up to 16 images once, before requests are taken",
        f"{address} answers; Prometheus metrics: {address}/metrics",
        *(f"{each} answers by gRPC" for each in addresses[1:]),
        "answering the requests that have begun, then stopping",
    ]
    assert load.answers.keys() <= {200, "ConnectError", "RemoteProtocolError", "ReadError", "WriteError"}, load.answers
    assert [pid for pid in below if is_alive(pid)] == []


def refused_for_compression(address):
    with tritonclient.grpc.InferenceServerClient(address) as client:
        given = tritonclient.grpc.InferInput("images", (1, 3, 64, 64), "FP32")
        given.set_data_from_numpy(np.zeros((1, 3, 64, 64), np.float32))
        with pytest.raises(tritonclient.utils.InferenceServerException, match="'gzip' is disabled"):
            client.infer("small", [given], compression_algorithm="gzip")


def test_it_speaks_https_alone_where_it_has_a_certificate(serve, certificate):
    trusted = ssl.create_default_context(cafile=str(certificate.certificate))
    with serve(tls=certificate) as service:
        assert service.address.startswith("https://127.0.0.1:")
        address = service.address.replace("127.0.0.1", "localhost")
        assert httpx.get(f"{address}/v2/health/ready", verify=trusted).status_code == 200
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"{address}/v2/health/ready".replace("https", "http"))
        old = ssl.create_default_context(cafile=str(certificate.certificate))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"{address}/v2/health/ready", verify=old)


def test_an_interrupt_while_it_starts_ends_it(monkeypatch):
    waited = []

    def interrupted(*given, **options):
        waited.append(given)
        if len(waited) == 1:
            raise KeyboardInterrupt
        return concurrent.futures.wait(*given, **options)

    def start():
        with pytest.raises(KeyboardInterrupt), begun(None):
            pytest.fail("it was not interrupted")
        ended.set()

    ended = threading.Event()
    monkeypatch.setattr(embedded, "wait", interrupted)
    threading.Thread(target=start, daemon=True).start()
    assert ended.wait(10)


def test_why_grpc_does_not_start_is_the_error_and_the_port_is_free_again(monkeypatch):
    class Failing:
        async def start(self):
            raise RuntimeFailedError("x")

    opened = []
    monkeypatch.setattr(embedded, "listening", lambda *given: opened.extend(listening_on(*given)) or opened)
    with pytest.raises(RuntimeFailedError, match="^x$"), begun(Failing()):
        pytest.fail("it started")
    assert [each.fileno() for each in opened] == [-1]


def begun(calls):
    """An application that nobody asks, behind a port."""
    return embedded._listening(None, Settings("model.onnx", port=0), None, calls)
