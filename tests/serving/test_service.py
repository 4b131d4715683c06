"""A service on Ray: two replicas under load, updated, one of them killed, and stopped."""

from __future__ import annotations

import collections
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.http
from cases import SMALL
from served import free_port

from evodeploy.engines.registry import open_engine
from evodeploy.export.to_onnx import onnx_from_model
from evodeploy.models.checkpoint import random_model
from evodeploy.onnx_files import write_onnx

PICTURE = Path(__file__).parents[2] / "sample" / "images" / "digit-7-0.png"
NAME = "evo_deit_test"


class Load:
    """Threads that ask on and on, and what they were answered."""

    def __init__(self, address, threads=8):
        self.answers = collections.Counter()
        self._address, self._stop, data = address, threading.Event(), PICTURE.read_bytes()

        def ask():
            with httpx.Client(timeout=60) as client:
                while not self._stop.is_set():
                    try:
                        status = client.post(f"http://{address}/v1/predict", content=data).status_code
                    except httpx.HTTPError as error:
                        status = type(error).__name__
                    self.answers[status] += 1

        self._threads = [threading.Thread(target=ask) for _ in range(threads)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()


def serve(*arguments):
    command = [sys.executable, "-m", "evodeploy", "serve", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def service(small_onnx):
    port, metrics = free_port(), free_port()
    process = serve(small_onnx, "--replicas", 2, "--port", port, "--metrics-port", metrics)
    address, deadline = f"127.0.0.1:{port}", time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"http://{address}/v2/health/ready").status_code == 200:
                break
        except httpx.HTTPError:
            time.sleep(0.2)
    else:
        process.kill()
        pytest.fail(f"the service does not answer: {process.communicate()}")
    yield process, address, metrics
    process.kill()


def replicas():
    told = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    return [int(line.split()[0]) for line in told.splitlines() if "ServeReplica:evodeploy" in line]


def logits(address, images):
    with tritonclient.http.InferenceServerClient(address) as triton:
        given = tritonclient.http.InferInput("images", images.shape, "FP32")
        given.set_data_from_numpy(images)
        return triton.infer(NAME, [given]).as_numpy("logits")


def test_from_start_to_stop_no_request_is_lost(service, small_onnx, tmp_path):
    process, address, metrics = service
    images = np.random.default_rng(2).standard_normal((5, 3, 64, 64), dtype=np.float32)
    with open_engine(small_onnx) as engine:
        np.testing.assert_allclose(logits(address, images), engine.run(images)["logits"], atol=1e-5)

    other = tmp_path / "other.onnx"
    write_onnx(onnx_from_model(random_model(SMALL, seed=21), tokens=True), other)
    dropping = {**os.environ, "EVODEPLOY_TOKEN": "other"}
    command = [sys.executable, "-m", "evodeploy", "serve", str(other), "--port", address.split(":")[1], "--update"]
    refused = subprocess.run([*command, "--metrics-port", str(metrics)], env=dropping, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "was started with another token: give the options" in refused.stderr

    with Load(address) as load:
        update = serve(other, "--replicas", 2, "--port", address.split(":")[1], "--metrics-port", metrics, "--update")
        alive = set()
        while update.poll() is None:
            alive.add(len(replicas()))
        assert update.returncode == 0, update.stderr.read()
        time.sleep(1)
    assert min(alive) >= 2, alive  # none stopped before its successor was there
    assert load.answers.keys() == {200}, load.answers
    assert load.answers[200] > 20
    with open_engine(other) as engine:
        np.testing.assert_allclose(logits(address, images), engine.run(images)["logits"], atol=1e-5)

    running = replicas()
    assert len(running) == 2
    with Load(address) as load:
        time.sleep(1)
        os.kill(running[0], signal.SIGKILL)
        time.sleep(5)
    assert load.answers.keys() <= {200, 500, 503}, load.answers  # what the killed replica was at is told to have failed
    assert load.answers[200] > 20
    assert sum(load.answers.values()) - load.answers[200] <= 8

    told = httpx.get(f"http://127.0.0.1:{metrics}/metrics").text
    assert "ray_evodeploy_batch_images_bucket" in told
    assert "ray_serve_num_http_requests" in told or "ray_serve_http_request" in told

    with Load(address) as load:
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert f"serving {NAME} from" in out
    assert "answering what was begun" in err
    assert 500 not in load.answers
    assert replicas() == []


def test_an_update_without_a_service_is_refused(small_onnx):
    update = serve(small_onnx, "--update")
    out, err = update.communicate(timeout=60)
    assert (update.returncode, out) == (2, "")
    assert err == "Error: no service runs here: start one with `evodeploy serve`\n"


OTHER = """
import ray, sys
from ray import serve
ray.init(namespace="evodeploy", log_to_driver=False)
serve.start(http_options={"port": int(sys.argv[1])})
@serve.deployment
class Other:
    async def __call__(self, request):
        return "still here"
serve.run(Other.bind(), name="other", route_prefix="/other")
"""


@pytest.mark.slow
def test_a_cluster_keeps_what_else_runs_on_it(small_onnx, monkeypatch):
    ray, gcs, port = Path(sys.executable).with_name("ray"), free_port(), free_port()
    start = [ray, "start", "--head", f"--port={gcs}", "--node-ip-address=127.0.0.1", "--num-cpus=3"]
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    subprocess.run([*start, "--include-dashboard=false"], check=True, capture_output=True, timeout=120)
    try:
        subprocess.run([sys.executable, "-c", OTHER, str(port)], check=True, capture_output=True, timeout=120)
        process = serve(small_onnx, "--port", port)
        while "serving" not in process.stdout.readline():
            assert process.poll() is None, process.stderr.read()
        assert httpx.get(f"http://127.0.0.1:{port}/v2/models/{NAME}/ready").status_code == 200
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert httpx.get(f"http://127.0.0.1:{port}/v2/health/live").status_code == 404
        assert httpx.get(f"http://127.0.0.1:{port}/other").text == "still here"
    finally:
        subprocess.run([ray, "stop", "--force"], check=True, capture_output=True, timeout=60)
