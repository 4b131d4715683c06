"""What a connection may take before its request has begun, and after it was answered.

uvicorn on httptools would wait for a header forever, take one of any size, keep an answer for ever for a client that
does not read it, and keep a connection for ever on which anything comes that is no further request: the rest of a body
that was refused, or empty lines. In the process that takes connections: this one, or Ray's proxy.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http import auto
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from evodeploy.serving.arrivals import RATE
from evodeploy.serving.gate import HEADER_BYTES

SECONDS = 10.0  # from a connection's, or a further request's, first moment to its header's end; and without any reading
KEEP_ALIVE = 90  # seconds that a connection waits for a further request: longer than proxies keep theirs, as Ray does
MOST = 4 * HEADER_BYTES  # bytes of a header that does not end; the gate refuses smaller ones with a better sentence
_WORDS = {400: "Bad Request", 408: "Request Timeout", 431: "Request Header Fields Too Large"}


class Watch:
    """A timer with a count of what was `seen`: `SECONDS` after it began it calls `ends` with that, unless it ended."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ends: Callable[[int], object]) -> None:
        self._loop, self._ends = loop, ends
        self._timer: asyncio.TimerHandle | None = None
        self.seen = 0

    @property
    def is_on(self) -> bool:
        """Whether it will call."""
        return self._timer is not None

    def begin(self, seen: int = 0) -> None:
        """Watch from now on, anew, with `seen` of what it counts."""
        self.end()
        self.seen = seen
        self._timer = self._loop.call_later(SECONDS, self._expire)

    def end(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        self._timer = None
        self._ends(self.seen)


class BoundedProtocol(HttpToolsProtocol):
    """A connection that is closed where a header does not end in time or in size, or nobody reads an answer.

    What comes after an answer and is no further request is dropped, and must come as fast as `RATE`.
    """

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self._header = Watch(self.loop, self._end_header)  # counts its bytes
        self._unread = Watch(self.loop, self._end_unread)  # holds the bytes of the answer that were not read at first
        self._dropped = Watch(self.loop, self._end_dropped)  # counts the bytes that were dropped

    def connection_made(self, transport: Any) -> None:
        """Wait for the first header."""
        super().connection_made(transport)
        self._header.begin()

    def on_message_begin(self) -> None:
        """Wait for the header of a request, the first or a further one."""
        super().on_message_begin()
        self._dropped.end()
        if not self._header.is_on:
            self._header.begin()

    def on_headers_complete(self) -> None:
        """Wait no more: the gate bounds what follows."""
        self._header.end()
        super().on_headers_complete()
        if self.parser.should_upgrade():
            self.cycle.keep_alive = False  # the parser takes nothing after the offer of another protocol

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        for watch in (self._header, self._unread, self._dropped):
            watch.end()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Watch whether the client reads what it is sent."""
        super().pause_writing()
        self._unread.begin(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """The client has read nearly all."""
        self._unread.end()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        """Parse, and count what is of a header that has not ended."""
        waited = self._header.is_on
        super().data_received(data)
        if waited and self._header.is_on:
            self._header.seen += len(data)
            if self._header.seen > MOST:
                self._close(431, f"the headers are larger than {MOST} bytes")
        elif not self._header.is_on and self.cycle is not None and self.cycle.response_complete:
            if not self._dropped.is_on:
                self._dropped.begin()
            self._dropped.seen += len(data)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request as all else is refused."""
        self._header.seen += 1  # there is something to answer
        self._close(400, "the request is not valid HTTP/1.1")

    def _end_header(self, _: int) -> None:
        self._close(408, f"the headers did not arrive within {SECONDS:g} s")

    def _end_unread(self, before: int) -> None:
        left = self.transport.get_write_buffer_size()
        if left < before:
            self._unread.begin(left)
        else:
            self.transport.abort()

    def _end_dropped(self, size: int) -> None:
        if size < RATE * SECONDS:
            self.transport.close()
        else:
            self._dropped.begin()

    def _close(self, status: int, reason: str) -> None:
        """Close, with an answer where a request has begun and none before it is still being answered."""
        self._header.end()
        if self._header.seen and (self.cycle is None or self.cycle.response_complete):
            body = json.dumps({"error": reason})
            head = f"HTTP/1.1 {status} {_WORDS[status]}\r\ncontent-type: application/json\r\nconnection: close\r\n"
            self.transport.write(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode())
        self.transport.close()


def bound_connections() -> list[Any]:
    """Let the server that this process starts take connections so; it gets no further middleware."""
    auto.AutoHTTPProtocol = BoundedProtocol
    return []
