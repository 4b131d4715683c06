"""Checks before any endpoint: who sends a request, how much it sends, and how many run at once."""

from __future__ import annotations

import asyncio
import functools
import hmac
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from fastapi.responses import JSONResponse

from evodeploy.machine.cores import usable_cores
from evodeploy.serving.arrivals import RATE, Arrival, Arrivals
from evodeploy.serving.settings import Limits

T = TypeVar("T")

HEADER_BYTES = 16 << 10  # of all headers of a request together
BODIES = 512  # request bodies that may be received at once: above that, slow ones are dropped


class Room:
    """The share of a service's `limits` that its requests use, by any protocol, in one event loop."""

    def __init__(self, limits: Limits) -> None:
        self.admitted = 0
        self.arrivals = Arrivals(BODIES, limits.body * limits.admitted)  # in total as much as all admitted may hold
        self._pool = ThreadPoolExecutor(min(32, usable_cores() + 4), "evodeploy-prepare")
        self._left: list[Future[Any]] = []  # the work of threads whose requests have ended

    @property
    def taken(self) -> int:
        """The places in use, by requests and by threads whose requests have ended."""
        self._left = [each for each in self._left if not each.done()]
        return self.admitted + len(self._left)

    async def in_thread(self, work: Callable[..., T], *given: Any) -> T:
        """Return the result of `work` from a thread, which keeps the place of its request if that ends first."""
        held = [given]
        future = self._pool.submit(lambda: work(*held.pop()))
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if future.cancel():
                held.clear()  # otherwise the pool keeps it until a thread is free
            else:
                self._left.append(future)
            raise


class Gate:
    """An ASGI middleware that passes requests within `limits` and with the `token`. `exempt` paths need no token.

    Requests for `unlimited` paths pass even if there are too many. Any other request takes one of the
    `limits.admitted` places when its body has arrived, so that a slow one keeps no other out. Gates may share their
    `room`. If bodies arrive `whole`, their progress is not visible, and each counts as the largest allowed one.
    """

    def __init__(
        self,
        app: Any,
        limits: Limits,
        token: str | None,
        exempt: frozenset[str],
        unlimited: frozenset[str] = frozenset(),
        room: Room | None = None,
        whole: bool = False,
    ) -> None:
        self._app, self._limits, self._exempt, self._unlimited = app, limits, exempt, exempt | unlimited
        self._token = f"Bearer {token}".encode() if token else None
        self._room = room or Room(limits)
        self._arrivals, self._whole = self._room.arrivals, whole

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass the request on, or answer 400, 401, 408, 413, 429, 431 or 504; send nothing if the client leaves."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exempt = scope["path"] in self._exempt
        if refusal := self._refusal(scope["headers"], exempt):
            await refusal(scope, receive, send)
        elif scope["path"] in self._unlimited:
            await self._app(scope, receive, send)
        else:
            await self._limited(scope, receive, send)

    def _refusal(self, headers: list[tuple[bytes, bytes]], exempt: bool) -> JSONResponse | None:
        """Return the refusal of a request by its headers alone, or None."""
        if sum(len(name) + len(value) for name, value in headers) > HEADER_BYTES:
            return JSONResponse({"error": f"the headers are larger than {HEADER_BYTES} bytes"}, 431)
        given = [value for name, value in headers if name == b"authorization"]
        if len(given) > 1:
            return JSONResponse({"error": f"Authorization is given {len(given)} times, expected once"}, 400)
        if self._token and not exempt and not hmac.compare_digest((*given, b"")[0], self._token):
            return JSONResponse({"error": "a bearer token is needed"}, 401, {"WWW-Authenticate": "Bearer"})
        lengths = {value for name, value in headers if name == b"content-length"} or {b"0"}
        if not all(each.isdigit() and len(each) < 20 and int(each) <= self._limits.body for each in lengths):
            return self._too_large()
        if _upgrades(headers) and _sends(headers):
            error = "a body with an offer of another protocol (Upgrade) is not accepted: use HTTP/1.1 only"
            return JSONResponse({"error": error}, 400)
        return None

    async def _limited(self, scope: Any, receive: Any, send: Any) -> None:
        """Receive the whole body, within the limits, and only then start the endpoint."""
        body = await self._body(receive, _sends(scope["headers"]))
        if body is None:
            return
        if not isinstance(body, bytes):
            await body(scope, receive, send)
        elif self._room.taken >= self._limits.admitted:
            await _too_many()(scope, receive, send)
        else:
            self._room.admitted += 1
            try:
                await self._answer(scope, body, receive, send)
            finally:
                self._room.admitted -= 1

    async def _answer(self, scope: Any, body: bytes, receive: Any, send: Any) -> None:
        """Run the endpoint within the limit of seconds, and as long as the client is connected."""
        whole, begun = iter([{"type": "http.request", "body": body, "more_body": False}]), False

        async def received() -> Any:
            return next(whole, None) or await asyncio.shield(left)

        async def sent(message: Any) -> None:
            nonlocal begun
            begun = True
            await send(message)

        left = asyncio.ensure_future(receive())  # the message after the body: that the client has left
        answering = asyncio.ensure_future(self._app(scope, received, sent))
        first = functools.partial(asyncio.wait, [left, answering], return_when=asyncio.FIRST_COMPLETED)
        try:
            done, _ = await first(timeout=self._limits.seconds)
            if begun and not done:
                done, _ = await first()
        finally:
            left.cancel()
            if answering.cancel():
                await asyncio.wait([answering])
        if answering in done:
            answering.result()
        elif not done:
            await JSONResponse({"error": f"not done within {self._limits.seconds:g} s"}, 504)(scope, receive, send)

    async def _body(self, receive: Any, sends: bool) -> bytes | JSONResponse | None:
        """Return the whole body, or the answer that refuses it, or None if the client left.

        It may take any time as long as data keeps arriving. Only a request that `sends` a body takes one of the places
        for bodies. If there is no room for all of them, those that arrive too slowly get 408.
        """
        loop = asyncio.get_running_loop()
        reading: asyncio.Future[bytes | JSONResponse | None]
        arrival = self._arrivals.admit(lambda: reading.cancel(), loop.time(), sends)
        if arrival is None:
            return _too_many()
        if self._whole and not self._arrivals.grows(arrival, self._limits.body, loop.time()):
            self._arrivals.leave(arrival)
            return _too_many()
        reading = asyncio.ensure_future(self._read(receive, arrival))
        before = -1
        try:
            while before < arrival.size:
                before = arrival.size
                await asyncio.wait([reading], timeout=self._limits.seconds)
                if reading.done():
                    return reading.result()
            return JSONResponse({"error": f"nothing of the request came for {self._limits.seconds:g} s"}, 504)
        except asyncio.CancelledError:
            if not arrival.evicted:
                raise
            rate = f"{RATE >> 10} KiB a second"
            return JSONResponse({"error": f"the request came at less than {rate} while others waited: try again"}, 408)
        finally:
            reading.cancel()
            self._arrivals.leave(arrival)

    async def _read(self, receive: Any, arrival: Arrival) -> bytes | JSONResponse | None:
        loop = asyncio.get_running_loop()
        parts: list[bytes] = []
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            more = message.get("more_body", False)
            if size > self._limits.body:
                return self._too_large()
            if not self._whole and not self._arrivals.grows(arrival, len(parts[-1]), loop.time()):
                return _too_many()
        return b"".join(parts)

    def _too_large(self) -> JSONResponse:
        return JSONResponse({"error": f"the request is larger than {self._limits.body} bytes"}, 413)


def _sends(headers: list[tuple[bytes, bytes]]) -> bool:
    """Return whether a body follows, which HTTP announces."""
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and int(value) > 0) for name, value in headers
    )


def _upgrades(headers: list[tuple[bytes, bytes]]) -> bool:
    """Return whether another protocol is offered, as by `curl --http2`: the parser then drops the body."""
    return any(name == b"upgrade" for name, _ in headers) and any(
        name == b"connection" and b"upgrade" in value.lower() for name, value in headers
    )


def _too_many() -> JSONResponse:
    return JSONResponse({"error": "too many requests at once: try again"}, 429, {"Retry-After": "1"})
