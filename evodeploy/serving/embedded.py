"""A service in this process: uvicorn in a thread, on one port, and optionally gRPC in its event loop, on another."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import uvicorn
from fastapi.responses import JSONResponse

from evodeploy.errors import BadFileError, EvodeployError, RuntimeFailedError, UsageError, needs
from evodeploy.files import open_regular
from evodeploy.serving.app import create_app
from evodeploy.serving.connections import KEEP_ALIVE, BoundedProtocol
from evodeploy.serving.gate import Room
from evodeploy.serving.hosts import hosts_for
from evodeploy.serving.metrics import Metrics
from evodeploy.serving.ports import check_free, listening
from evodeploy.serving.settings import Settings, Tls
from evodeploy.serving.worker import Worker, named, open_served
from evodeploy.text import reason

if TYPE_CHECKING:
    from evodeploy.serving.grpc_server import GrpcServer

LARGEST_PEM = 1 << 20  # bytes of a file with a certificate or a key


@contextmanager
def running(settings: Settings) -> Iterator[tuple[str, str | None, Settings]]:
    """Run a service as `service.running` describes it; yield its address, the one of gRPC, and the full `settings`."""
    if settings.gpus:
        raise UsageError("gpus is for replicas on Ray: choose a GPU with the device, cuda:N")
    if settings.metrics_port is not None:
        raise UsageError("one process serves its metrics at its own port, at /metrics: leave --metrics-port out")
    context = None if settings.tls is None else _context(settings.tls)
    check_free(settings.host, settings.port, "--port")
    if settings.grpc_port is not None:
        check_free(settings.host, settings.grpc_port, "--grpc-port")
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # read on import: otherwise any client can fill the log
        with needs("grpc"):
            import grpc  # noqa: F401  # first: without it Triton's package does not raise ImportError
            import tritonclient.grpc  # noqa: F401
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(open_served(settings))
        settings = named(settings, engine)
        assert settings.name is not None
        metrics = Metrics()
        worker = Worker(engine, settings, metrics.ran)
        stack.callback(worker.close)
        hosts, room = hosts_for(settings), Room(settings.limits)
        app = create_app(lambda: worker, settings.name, settings.limits, settings.token, hosts, metrics, room)
        calls = None if settings.grpc_port is None else _calls(worker, settings, metrics, room)
        port = stack.enter_context(_listening(app, settings, context, calls))
        host = settings.url_host
        at = None if calls is None else f"{host}:{calls.port}"
        yield f"{'https' if context else 'http'}://{host}:{port}", at, settings


def _calls(worker: Worker, settings: Settings, metrics: Metrics, room: Room) -> GrpcServer:
    from evodeploy.serving.calls import METHODS, create_calls
    from evodeploy.serving.grpc_server import GrpcServer

    assert settings.name is not None
    app = create_calls(lambda: worker, settings.name, settings.limits, settings.token, metrics, room)
    return GrpcServer(app, METHODS, settings)


class _Stopping:
    """ASGI middleware that answers 503 to requests that uvicorn cancels when it stops: it would send plain text."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass the request on."""
        begun = False

        async def sent(message: Any) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, sent)
        except asyncio.CancelledError:
            if begun:
                raise
            refusal = JSONResponse({"error": "the service stops: ask another, or again"}, 503)
            await refusal(scope, receive, send)


class _Server(uvicorn.Server):
    """uvicorn and optionally gRPC, which start and stop together in one event loop."""

    def __init__(self, config: uvicorn.Config, calls: GrpcServer | None) -> None:
        super().__init__(config)
        self._calls = calls

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self._calls is not None:
            await self._calls.start()
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        ends = [super().shutdown(sockets)] if self._calls is None else [super().shutdown(sockets), self._calls.stop()]
        await asyncio.gather(*ends)


@contextmanager
def _listening(app: Any, settings: Settings, context: ssl.SSLContext | None, calls: GrpcServer | None) -> Iterator[int]:
    """Serve `app` on a port and yield it. After the body, requests that have begun are answered within the limit."""
    logging.getLogger("uvicorn").setLevel(logging.ERROR)  # otherwise any client that sends nonsense fills the log
    config = uvicorn.Config(
        _Stopping(app),
        http=BoundedProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # otherwise a client on this machine could claim to be another
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=math.ceil(settings.limits.seconds),
    )
    config.load()
    config.ssl = context
    server = _Server(config, calls)
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(each) for each in listening(settings.host, settings.port, "--port")]
        port: int = sockets[0].getsockname()[1]
        ended = stack.enter_context(ThreadPoolExecutor(1, "evodeploy-http")).submit(server.run, sockets)
        try:
            while not server.started:
                if wait([ended], timeout=0.005).done:
                    error = ended.exception()
                    if isinstance(error, EvodeployError):
                        raise error
                    raise RuntimeFailedError("the server does not start") from error
            yield port
        finally:
            server.should_exit = True
            wait([ended])


def _context(tls: Tls) -> ssl.SSLContext:
    """Return the TLS context of the files. Raises UsageError if one does not exist, BadFileError if one is invalid."""
    for path, what in ((tls.certificate, "a certificate"), (tls.key, "a private key")):
        open_regular(path, f"{what} in PEM", LARGEST_PEM).close()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.certificate, tls.key, password="")  # an encrypted key is refused: nobody is asked
    except (ssl.SSLError, OSError) as error:
        raise BadFileError(
            f"{tls.certificate} and {tls.key} are not a certificate and its unencrypted key in PEM ({reason(error)})"
        ) from error
    return context
