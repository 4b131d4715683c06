"""gRPC before an ASGI application: a call becomes a request to its path, and the answer its message or its status.

A call reaches the application with its header; the application takes its message, once the gate lets it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable, Mapping
from typing import Any

import grpc
import grpc.aio

from evodeploy.errors import RuntimeFailedError
from evodeploy.serving.connections import KEEP_ALIVE, SECONDS
from evodeploy.serving.gate import BODIES, HEADER_BYTES
from evodeploy.serving.settings import Limits, Settings

_log = logging.getLogger(__name__)

LARGEST = 2**31 - 1  # of what gRPC takes as a limit, and of a message
QUIET = 10  # tenths of a second, at most, in which a service that stops waits for one in which no call comes
AGE = 600  # seconds of a connection: an answer that is not read is held no longer

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT, 401: grpc.StatusCode.UNAUTHENTICATED, 404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.RESOURCE_EXHAUSTED, 413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED, 500: grpc.StatusCode.INTERNAL, 503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}  # fmt: skip


class GrpcServer:
    """Calls of the `methods`, which are paths and what HTTP calls their method, to `app`, where `settings` say.

    It has the limits, the address and the certificate of `settings`. Start and stop it in one event loop.
    """

    def __init__(self, app: Any, methods: Mapping[str, str], settings: Settings) -> None:
        self._handler, self._settings = _Handler(app, methods), settings
        self.port = 0

    async def start(self) -> None:
        """Listen, on `port`. Raises RuntimeFailedError where that fails."""
        settings = self._settings
        self._server = grpc.aio.server(options=_options(settings.limits))
        self._server.add_generic_rpc_handlers((self._handler,))
        address = f"{settings.url_host}:{settings.grpc_port}"
        try:
            if settings.tls is None:
                self.port = self._server.add_insecure_port(address)
            else:
                pair = settings.tls.key.read_bytes(), settings.tls.certificate.read_bytes()
                self.port = self._server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
        except RuntimeError as error:
            raise RuntimeFailedError(f"gRPC cannot listen on {address}: choose another --grpc-port") from error
        await self._server.start()

    async def stop(self) -> None:
        """Refuse every further call, and end once those begun are answered, within the limit of seconds.

        A call that meets gRPC's own end is CANCELLED, which says nothing to a client: so that comes last, when no call
        has come for a while.
        """
        ended = await self._handler.drained(self._settings.limits.seconds)
        await self._server.stop(self._settings.limits.seconds if ended else 0)


def _options(limits: Limits) -> list[tuple[str, int]]:
    """What a connection may take, as `connections.py` and `gate.py` say it for HTTP."""
    return [
        ("grpc.so_reuseport", 0),  # a port for this process alone
        ("grpc.max_receive_message_length", min(limits.body, LARGEST)),
        ("grpc.max_metadata_size", HEADER_BYTES),
        ("grpc.absolute_max_metadata_size", HEADER_BYTES),
        ("grpc.max_concurrent_streams", BODIES),
        ("grpc.server_handshake_timeout_ms", int(SECONDS * 1000)),
        ("grpc.max_connection_idle_ms", KEEP_ALIVE * 1000),
        ("grpc.max_connection_age_ms", int(AGE * 1000)),
        ("grpc.max_connection_age_grace_ms", min(int(2 * limits.seconds * 1000), LARGEST)),  # a message, its answer
        ("grpc.compression_enabled_algorithms_bitset", 1),  # none: a small message may be a huge one
    ]


class _Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, app: Any, methods: Mapping[str, str]) -> None:
        self._app, self._methods = app, methods
        self._calls: set[asyncio.Task[Any]] = set()
        self._ends, self._refused = False, 0

    async def drained(self, seconds: float) -> bool:
        """Refuse calls from now on, until none comes any more; False where those begun did not end in these seconds."""
        self._ends = True
        late = (await asyncio.wait(self._calls, timeout=seconds))[1] if self._calls else None
        for _ in range(QUIET):
            refused = self._refused
            await asyncio.sleep(0.1)
            if refused == self._refused:
                break
        return not late

    def service(self, details: Any) -> Any:
        """What answers a call, None for no such method: as one of a stream, which may answer before it reads."""
        path = details.method
        if path not in self._methods:
            return None

        async def answer(_: Any, context: Any) -> None:
            if self._ends:
                self._refused += 1
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the service stops: ask another, or again")
            call = asyncio.current_task()
            assert call is not None
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
            status, body = await self._ask(path, context)
            if status != 200:
                await context.abort(_CODES.get(status, grpc.StatusCode.UNKNOWN), json.loads(body)["error"])
            await context.write(body)

        return grpc.stream_stream_rpc_method_handler(answer)

    async def _ask(self, path: str, context: Any) -> tuple[int, bytes]:
        """The status and the body that the application answers with."""
        status, parts, taken = 400, [b'{"error": "the call has no message"}'], False

        async def receive() -> dict[str, Any]:
            nonlocal taken
            if taken:  # one message is all: a client that leaves ends the call
                await asyncio.get_running_loop().create_future()
            message = await context.read()
            if message is grpc.aio.EOF:
                return {"type": "http.disconnect"}
            taken = True
            return {"type": "http.request", "body": message, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                parts.clear()
            else:
                parts.append(message.get("body", b""))

        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "2", "method": self._methods[path],
            "scheme": "http", "path": path, "raw_path": path.encode(), "root_path": "", "query_string": b"",
            "headers": _headers(context.invocation_metadata()), "client": None, "server": None,
        }  # fmt: skip
        try:
            await self._app(scope, receive, send)
        except Exception:  # the application has answered; gRPC's own answer would say what it is
            _log.exception("a call of %s failed", path)
        return status, b"".join(parts)


def _headers(metadata: Iterable[tuple[str, str | bytes]]) -> list[tuple[bytes, bytes]]:
    """Who asks, and that a body comes, of a length that is not known."""
    given = [value.encode() if isinstance(value, str) else value for key, value in metadata if key == "authorization"]
    return [(b"transfer-encoding", b"chunked"), *((b"authorization", value) for value in given)]
