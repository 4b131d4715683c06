"""A service on Ray: two replicas under load, updated, one of them killed, and stopped."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
from cases import SMALL
from processes import is_alive, listening, named_below, processes_below
from served import NAME, Load, free_port, logits, started

from evodeploy.cluster import ATTEMPTS
from evodeploy.engines.opener import open_engine
from evodeploy.errors import RuntimeFailedError, UsageError
from evodeploy.exporter.to_onnx import onnx_from_model
from evodeploy.models.random_weights import random_model
from evodeploy.onnx_files import write_onnx
from evodeploy.serving import ray_serve
from evodeploy.serving.budget import Budget
from evodeploy.serving.settings import Settings
from evodeploy.specs import EngineOptions

serve = functools.partial(started, "serve")


@contextlib.contextmanager
def served(*arguments, **changes):
    """A service that answers: its process, its address and the port of its metrics."""
    port, metrics = free_port(), free_port()
    process = serve(*arguments, "--port", port, "--metrics-port", metrics, **changes)
    address, deadline = f"127.0.0.1:{port}", time.monotonic() + 300
    try:
        while health(address) != 200:
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                pytest.fail(f"the service does not answer: {process.communicate()}")
            time.sleep(0.2)
        assert process.stdout.readline().startswith(f"serving {NAME} from")  # which waits for signals from here on
        yield process, address, metrics
        if process.poll() is None:
            process.terminate()
            process.wait(120)
    finally:
        process.kill()


def health(address):
    try:
        return httpx.get(f"http://{address}/v2/health/ready", timeout=60).status_code
    except httpx.HTTPError:
        return None


@pytest.fixture(scope="module")
def decoys(tmp_path_factory):
    """What would lead Ray to another one: an address of the environment, and one in the file of Ray's own folder."""
    folder = tmp_path_factory.mktemp("decoy")
    (folder / "ray").mkdir()
    (folder / "ray" / "ray_current_cluster").write_text("127.0.0.1:9")
    return {"RAY_ADDRESS": "127.0.0.1:9", "RAY_TMPDIR": str(folder)}


@pytest.fixture(scope="module")
def service(small_onnx, decoys):
    with served(small_onnx, "--replicas", 2, **decoys) as answering:
        yield answering


def replicas(pid):
    return named_below(pid, "ServeReplica:evodeploy")


def test_all_ports_are_on_loopback_and_described(service):
    process, address, metrics = service
    described = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
    found = list(listening(process.pid))
    for command, host, _ in found:
        assert host.is_loopback, (command, host)
        kinds = re.findall(r"evodeploy serve|ray::\w+|\w+_server|raylet/raylet|\w*monitor\.py|dashboard\.py", command)
        assert f"`{kinds[0].removeprefix('raylet/')}`" in described, command
    ports = {port for _, _, port in found}
    assert {int(address.split(":")[1]), metrics} < ports
    assert len(found) > 10


def test_a_header_without_an_end_is_not_taken(service):
    host, port = service[1].split(":")
    with socket.create_connection((host, int(port)), timeout=60) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Large: " + b"x" * 70_000)
        assert client.recv(100).startswith(b"HTTP/1.1 431 ")


def test_its_ray_answers_no_stranger(service):
    home = Path(f"/tmp/evodeploy-{os.getuid()}/serve-{service[1].split(':')[1]}")
    assert home.parent.stat().st_mode & 0o777 == 0o700
    with grpc.insecure_channel((home / "address").read_text()) as channel:
        nodes = channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetAllNodeInfo")
        for metadata in ((), (("authorization", "Bearer guess"),)):
            with pytest.raises(grpc.RpcError) as refused:
                nodes(b"", timeout=60, metadata=metadata)
            assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
        assert nodes(b"", timeout=60, metadata=(("authorization", f"Bearer {(home / 'token').read_text()}"),))


def test_another_host_or_a_second_service_on_its_port_is_refused(service, small_onnx, cli):
    _, address, metrics = service
    evil = httpx.get(f"http://{address}/v2", headers={"Host": "evil.example"})
    assert evil.status_code == 421
    assert "'evil.example' is not a host of this service" in evil.json()["error"]
    port = address.split(":")[1]
    for options in ((), ("--replicas", 2)):
        code, out, err = cli("serve", small_onnx, "--port", port, *options)
        assert (code, out) == (2, "")
        assert f"cannot listen on port {port} of 127.0.0.1 (Address already in use): choose another" in err
    code, _, err = cli("serve", small_onnx, "--port", free_port(), "--metrics-port", metrics, "--replicas", 2)
    assert (code, "choose another with --metrics-port" in err) == (2, True)


def test_its_tensors_are_the_engines(service, small_onnx):
    images = np.random.default_rng(2).standard_normal((5, 3, 64, 64), dtype=np.float32)
    with open_engine(small_onnx) as engine:
        np.testing.assert_allclose(logits(service[1], images), engine.run(images)["logits"], atol=1e-5)


@pytest.mark.slow
def test_an_update_and_a_killed_replica_lose_no_other_request(service, small_onnx, tmp_path):
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
    assert "these differ: replicas, token; give those that it was started with" in refused.stderr

    with Load(f"http://{address}") as load:
        update = serve(other, "--replicas", 2, "--port", address.split(":")[1], "--metrics-port", metrics, "--update")
        alive = set()
        while update.poll() is None:
            alive.add(len(replicas(process.pid)))
        assert update.returncode == 0, update.stderr.read()
        time.sleep(1)
    assert min(alive) >= 2, alive  # none stopped before its successor was there
    assert load.answers.keys() == {200}, load.answers
    assert load.answers[200] > 20
    with open_engine(other) as engine:
        np.testing.assert_allclose(logits(address, images), engine.run(images)["logits"], atol=1e-5)

    running = replicas(process.pid)
    assert len(running) == 2
    with Load(f"http://{address}") as load:
        time.sleep(1)
        os.kill(running[0], signal.SIGKILL)
        time.sleep(5)
    assert load.answers.keys() <= {200, 500, 503}, load.answers  # what the killed replica was at is reported as failed
    assert load.answers[200] > 20
    assert sum(load.answers.values()) - load.answers[200] <= 8

    metrics_text = httpx.get(f"http://127.0.0.1:{metrics}/metrics").text
    assert "ray_evodeploy_batch_images_bucket" in metrics_text
    assert "ray_serve_num_http_requests" in metrics_text or "ray_serve_http_request" in metrics_text


def test_a_signal_to_all_of_it_ends_it_in_order(service):
    process, address, metrics = service
    with Load(f"http://{address}") as load:
        time.sleep(1)
        below = processes_below(process.pid)
        os.killpg(process.pid, signal.SIGTERM)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert err.splitlines() == [
        f"http://{address} answers; Prometheus metrics: http://127.0.0.1:{metrics}/metrics",
        "answering the requests that have begun, then stopping",
    ]
    assert 500 not in load.answers
    assert [pid for pid in below if is_alive(pid)] == []


def test_an_update_without_a_service_is_refused(small_onnx, cli):
    port = free_port()
    code, out, err = cli("serve", small_onnx, "--update", "--port", port)
    assert (code, out) == (2, "")
    assert f"no service on Ray runs here on port {port}: start one with `serve --replicas N`" in err


def remote(result):
    """A method of a replica, as Ray Serve's handle has it."""
    return types.SimpleNamespace(remote=lambda: types.SimpleNamespace(result=lambda timeout_s: result()))


@pytest.fixture
def updated(monkeypatch):
    """A function that updates a service of 2 replicas, and gives what was deployed and where its metrics are."""
    before = Settings(Path("a.onnx"), "a", "openvino", replicas=2, gpus=0.5, max_batch=32)
    deployed = []
    monkeypatch.setattr(ray_serve, "_joined", lambda *_: contextlib.nullcontext(True))
    monkeypatch.setattr("ray.serve.status", lambda: types.SimpleNamespace(applications={"evodeploy": None}))
    handle = types.SimpleNamespace(current_settings=remote(lambda: before))
    monkeypatch.setattr("ray.serve.get_app_handle", lambda _: handle)
    monkeypatch.setattr(ray_serve, "_deploy", lambda settings, files: deployed.append(settings))

    def update(cluster=None, **changes):
        metrics = ray_serve.update(dataclasses.replace(before, artefact=Path("b.onnx"), **changes), (), cluster)
        return deployed[-1], metrics

    return update


def test_an_update_takes_another_artefact_its_engine_and_its_options(updated):
    options = EngineOptions(threads=1)
    deployed, _ = updated(engine="onnxruntime", options=options)
    assert (deployed.artefact, deployed.engine, deployed.options) == (Path("b.onnx"), "onnxruntime", options)


@pytest.mark.parametrize(
    "changes",
    [
        {"replicas": 1},
        {"max_replicas": 8},
        {"gpus": 0.0},
        {"budget": Budget(1, 0.3)},
        {"max_batch": 16},
        {"token": "x"},
    ],
)
def test_an_update_drops_no_option_of_the_service(updated, changes):
    (name,) = changes
    with pytest.raises(UsageError, match=f"these differ: {name}; give those that it was started with"):
        updated(**changes)


def test_metrics_are_where_the_ray_has_them(updated):
    assert updated()[1] == "http://127.0.0.1:8099/metrics"
    assert updated("auto")[1] is None  # `ray start --metrics-export-port` says it


def test_a_service_without_a_replica_that_answers_is_not_updated(updated, monkeypatch):
    def stalled():
        raise TimeoutError("timed out")

    monkeypatch.setattr("ray.serve.get_app_handle", lambda _: types.SimpleNamespace(current_settings=remote(stalled)))
    with pytest.raises(RuntimeFailedError, match=r"no replica .* says what it was started with \(timed out\)"):
        updated()


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ("failed. Error:\n  File x\nevodeploy.errors.UsageError: one image takes 9 ms\n", "one image takes 9 ms"),
        ("failed 6 times. Error:\nOSError: no space left", "OSError: no space left"),
        ("", "Deploying failed: see the status"),
        (None, "Deploying failed: see the status"),
    ],
)
def test_why_a_replica_does_not_start_is_the_error(monkeypatch, message, sentence):
    def run(*_, **__):
        raise RuntimeError("Deploying failed: see the status")

    deployments = {} if message is None else {"evodeploy": types.SimpleNamespace(message=message)}
    status = types.SimpleNamespace(applications={"evodeploy": types.SimpleNamespace(deployments=deployments)})
    monkeypatch.setattr("ray.serve.run", run)
    monkeypatch.setattr("ray.serve.status", lambda: status)
    with pytest.raises(RuntimeFailedError, match=f"^the service does not start: {sentence}$"):
        ray_serve._deploy(Settings(Path("model.onnx"), "model"), ())


def test_why_serve_does_not_start_is_the_error(monkeypatch):
    """Without a controller Ray cannot delete either, which says nothing to the user."""

    def failing(what):
        def fail(*_, **__):
            raise RuntimeError(what)

        return fail

    monkeypatch.setattr(ray_serve, "_ray", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr("ray.serve.start", failing("no room for a controller"))
    monkeypatch.setattr("ray.serve.delete", failing("there is no controller"))
    settings = Settings(Path("model.onnx"), port=free_port(), metrics_port=free_port())
    started = ray_serve.running(settings, files=None)
    with pytest.raises(RuntimeFailedError, match=r"Serve cannot start here: .*no room for a controller"), started:
        pytest.fail("it started")


@pytest.mark.slow
@pytest.mark.parametrize("to", ["main", "all", "interrupt"])
def test_signals_end_it_in_order(small_onnx, decoys, to):
    with served(small_onnx, "--replicas", 2, **decoys) as (process, _, _):
        below = processes_below(process.pid)
        if to == "interrupt":
            os.killpg(process.pid, signal.SIGINT)
        else:
            for pid in below if to == "all" else below[:1]:  # all: as systemd does
                os.kill(pid, signal.SIGTERM)
        _, err = process.communicate(timeout=120)
        assert (process.returncode, err.splitlines()[1:]) == (
            0,
            ["answering the requests that have begun, then stopping"],
        )
        assert [pid for pid in below if is_alive(pid)] == []


@pytest.mark.slow
def test_a_signal_while_it_starts_ends_it(small_onnx):
    port = free_port()
    process = serve(small_onnx, "--port", port, "--metrics-port", free_port(), "--replicas", 2)
    home = Path(f"/tmp/evodeploy-{os.getuid()}/serve-{port}")
    while not home.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143, err
    assert "Traceback" not in err
    assert not home.exists()


@pytest.mark.slow
def test_a_replaced_artefact_is_not_served_and_health_says_so(small_onnx, tmp_path):
    artefact = tmp_path / "model.onnx"
    artefact.write_bytes(small_onnx.read_bytes())
    with served(artefact, "--replicas", 2) as (process, address, _):
        artefact.write_bytes(b"another")
        for replica in replicas(process.pid):
            os.kill(replica, signal.SIGKILL)
        deadline = time.monotonic() + 120
        while health(address) != 503 or "is not the file" not in httpx.get(f"http://{address}/v2/models/{NAME}").text:
            assert time.monotonic() < deadline
            time.sleep(0.2)


OTHER = """
import ray, sys
from ray import serve
ray.init(sys.argv[1], namespace="evodeploy", log_to_driver=False)
serve.start(http_options={"port": int(sys.argv[2])})
@serve.deployment
class Other:
    async def __call__(self, request):
        return "still here"
serve.run(Other.bind(), name="other", route_prefix="/other")
"""


@pytest.mark.slow
def test_another_ray_is_joined_where_it_is_asked_for_and_else_left_alone(small_onnx, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    port = free_port()
    with ray_head() as cluster:
        monkeypatch.setenv("RAY_ADDRESS", cluster)
        started = subprocess.run([sys.executable, "-c", OTHER, cluster, str(port)], capture_output=True, timeout=240)
        assert started.returncode == 0, started.stderr
        with served(small_onnx, "--replicas", 2) as (own, address, _):
            assert httpx.get(f"http://{address}/other").status_code == 404
            own.send_signal(signal.SIGINT)
            assert own.wait(120) == 0
        elsewhere = serve(small_onnx, "--port", free_port(), "--ray", cluster)
        _, err = elsewhere.communicate(timeout=120)
        assert (elsewhere.returncode, f"listens on 127.0.0.1:{port}, and a Ray has only one address" in err) == (
            2,
            True,
        ), err
        process = serve(small_onnx, "--port", port, "--ray", cluster)
        while "serving" not in process.stdout.readline():
            assert process.poll() is None, process.stderr.read()
        assert httpx.get(f"http://127.0.0.1:{port}/v2/models/{NAME}/ready").status_code == 200
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert httpx.get(f"http://127.0.0.1:{port}/v2/health/live").status_code == 404
        assert httpx.get(f"http://127.0.0.1:{port}/other").text == "still here"


@contextlib.contextmanager
def ray_head():
    """The address of a Ray of its own, started again where a busy machine needs longer than Ray's half minute."""
    for _ in range(ATTEMPTS):
        folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # short: the paths of Ray's sockets have a limit
        start = [Path(sys.executable).with_name("ray"), "start", "--head", "--block", f"--port={free_port()}"]
        start += ["--node-ip-address=127.0.0.1", "--num-cpus=3", "--include-dashboard=false", f"--temp-dir={folder}"]
        start += [f"--ray-client-server-port={free_port()}"]
        head = subprocess.Popen(start, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            if cluster := content(Path(folder) / "ray_current_cluster", head):
                yield cluster
                return
        finally:
            head.terminate()
            head.wait(60)
            shutil.rmtree(folder, ignore_errors=True)
    pytest.fail("Ray does not start here")


def content(path, process):
    """What is in the file `path`, once there is something, or None where the `process` that writes it has ended."""
    while process.poll() is None:
        with contextlib.suppress(OSError):
            if text := path.read_text():
                return text
        time.sleep(0.1)
    return None
