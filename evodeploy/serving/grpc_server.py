"""gRPC in front of an ASGI application: a call becomes a request to its path, the answer its message or its status.

The application receives a call with its header, and reads the message when the gate permits.
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

LARGEST = 2**31 - 1  # the largest limit that gRPC accepts, and the largest message
QUIET = 10  # tenths of a second, at most, that a stopping service waits for one in which no call arrives
AGE = 600  # lifetime of a connection in seconds: an unread answer is held no longer

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT, 401: grpc.StatusCode.UNAUTHENTICATED, 404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.RESOURCE_EXHAUSTED, 413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED, 500: grpc.StatusCode.INTERNAL, 503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}  # fmt: skip


class GrpcServer:
    """Serves calls of `methods` with `app`. `methods` maps paths to HTTP methods.

    The limits, the address and the certificate come from `settings`. Start and stop it in one event loop.
    """

    def __init__(self, app: Any, methods: Mapping[str, str], settings: Settings) -> None:
        self._handler, self._settings = _Handler(app, methods), settings
        self.port = 0

    async def start(self) -> None:
        """Listen, and set `port`. Raises RuntimeFailedError if that fails."""
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
        """Refuse all further calls, and end when those that have begun are answered, within the limit of seconds.

        Calls that gRPC itself ends are CANCELLED, which gives a client no reason. So gRPC is stopped last, when no call
        has arrived for a while.
        """
        ended = await self._handler.drained(self._settings.limits.seconds)
        await self._server.stop(self._settings.limits.seconds if ended else 0)


def _options(limits: Limits) -> list[tuple[str, int]]:
    """Return the limits of a connection, the same as those of `connections.py` and `gate.py` for HTTP."""
    return [
        ("grpc.so_reuseport", 0),  # no other process may share the port
        ("grpc.max_receive_message_length", min(limits.body, LARGEST)),
        ("grpc.max_metadata_size", HEADER_BYTES),
        ("grpc.absolute_max_metadata_size", HEADER_BYTES),
        ("grpc.max_concurrent_streams", BODIES),
        ("grpc.server_handshake_timeout_ms", int(SECONDS * 1000)),
        ("grpc.max_connection_idle_ms", KEEP_ALIVE * 1000),
        ("grpc.max_connection_age_ms", int(AGE * 1000)),
        ("grpc.max_connection_age_grace_ms", min(int(2 * limits.seconds * 1000), LARGEST)),  # message and answer
        ("grpc.compression_enabled_algorithms_bitset", 1),  # none: a small compressed message may become a huge one
    ]


class _Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, app: Any, methods: Mapping[str, str]) -> None:
        self._app, self._methods = app, methods
        self._calls: set[asyncio.Task[Any]] = set()
        self._ends, self._refused = False, 0

    async def drained(self, seconds: float) -> bool:
        """Refuse calls from now on until no more arrive. Return False if those that began did not end in `seconds`."""
        self._ends = True
        late = (await asyncio.wait(self._calls, timeout=seconds))[1] if self._calls else None
        for _ in range(QUIET):
            refused = self._refused
            await asyncio.sleep(0.1)
            if refused == self._refused:
                break
        return not late

    def service(self, details: Any) -> Any:
        """Return the stream handler of a call, which may answer before it reads, or None if the method is unknown."""
        path = details.method
        if path not in self._methods:
            return None

        async def answer(_: Any, context: Any) -> None:
            if self._ends:
                self._refused += 1
                await context.abort(
                    grpc.StatusCode.UNAVAILABLE, "the service is stopping: ask another one, or try again later"
                )
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
        """Return the status and the body of the application's answer."""
        status, parts, taken = 400, [b'{"error": "the call has no message"}'], False

        async def receive() -> dict[str, Any]:
            nonlocal taken
            if taken:  # there is only one message: if the client leaves, the call ends
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
        except Exception:  # the application has answered; gRPC's own answer would expose the error
            _log.exception("a call of %s failed", path)
        return status, b"".join(parts)


def _headers(metadata: Iterable[tuple[str, str | bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the headers: the authorization, and the announcement of a body of unknown length."""
    given = [value.encode() if isinstance(value, str) else value for key, value in metadata if key == "authorization"]
    return [(b"transfer-encoding", b"chunked"), *((b"authorization", value) for value in given)]
