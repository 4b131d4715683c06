from __future__ import annotations

import contextlib
import shutil
import subprocess
import threading
import time

import pytest
import uvicorn
from served import Direct, free_port

from evodeploy.engines.opener import open_engine
from evodeploy.serving.app import create_app
from evodeploy.serving.service import running
from evodeploy.serving.settings import Limits, Settings, Tls
from evodeploy.serving.worker import Worker


@pytest.fixture(scope="session")
def engine(small_onnx):
    with open_engine(small_onnx, "onnxruntime") as opened:
        yield opened


@pytest.fixture
def backend(engine):
    return Direct(engine)


@pytest.fixture
def app(backend):
    """A function that makes the service's ASGI application."""

    def make(token=None, **limits):
        return create_app(lambda: backend, "small", Limits(**limits), token)

    return make


@pytest.fixture
def listening():
    """A function that serves an application on a port of this machine, and returns its address."""
    with contextlib.ExitStack() as stack:

        def listen(application):
            server = uvicorn.Server(uvicorn.Config(application, port=free_port(), log_level="error"))
            thread = threading.Thread(target=server.run, daemon=True)
            thread.start()
            stack.callback(thread.join)
            stack.callback(setattr, server, "should_exit", True)
            while not server.started:
                assert thread.is_alive(), "the server does not start"
                time.sleep(0.01)
            return f"127.0.0.1:{server.config.port}"

        yield listen


@pytest.fixture
def serve(small_onnx):
    """A function that gives a service in this process as a context manager."""

    def start(**settings):
        return running(Settings(small_onnx, **{"port": 0, "max_batch": 4} | settings))

    return start


@pytest.fixture
def held(monkeypatch):
    """Workers that compute nothing until this event is set; `arrived` counts what they were given."""
    free, run = threading.Event(), Worker._compute
    free.arrived = 0

    def compute(self, requests):
        free.arrived += len(requests)
        assert free.wait(60)
        return run(self, requests)

    monkeypatch.setattr(Worker, "_compute", compute)
    yield free
    free.set()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A certificate of localhost that vouches for itself, and its key; made by openssl."""
    if shutil.which("openssl") is None:
        pytest.skip("here is no openssl to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    files = Tls(folder / "cert.pem", folder / "key.pem")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
    subprocess.run([*command, "-out", files.certificate, "-keyout", files.key], check=True, capture_output=True)
    return files
