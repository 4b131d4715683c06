from __future__ import annotations

import contextlib
import threading
import time

import pytest
import uvicorn
from served import Direct, free_port

from evodeploy.engines.opener import open_engine
from evodeploy.serving.app import create_app
from evodeploy.serving.settings import Limits


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
