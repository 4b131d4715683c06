"""Limits on a connection before its request has begun and after it was answered.

uvicorn on httptools has no limit on four things: the time a header takes, its size, the time for which it keeps an
answer that a client does not read, and the life of a connection that sends anything but a further request: the rest of
a refused body, or empty lines. The limits apply in the process that accepts connections: this one, or Ray's proxy.
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

SECONDS = 10.0  # from the start of a connection or request to its header's end; also for an answer to stay unread
KEEP_ALIVE = 90  # seconds that a connection waits for a further request: longer than proxies keep theirs, as in Ray
MOST = 4 * HEADER_BYTES  # bytes of an unfinished header; the gate refuses smaller ones with a better message
_WORDS = {400: "Bad Request", 408: "Request Timeout", 431: "Request Header Fields Too Large"}


class Watch:
    """A timer that counts what was `seen`. After `SECONDS` it calls `ends` with the count, unless ended before."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ends: Callable[[int], object]) -> None:
        self._loop, self._ends = loop, ends
        self._timer: asyncio.TimerHandle | None = None
        self.seen = 0

    @property
    def is_on(self) -> bool:
        """Whether the timer is running."""
        return self._timer is not None

    def begin(self, seen: int = 0) -> None:
        """Start or restart the timer, with the count at `seen`."""
        self.end()
        self.seen = seen
        self._timer = self._loop.call_later(SECONDS, self._expire)

    def end(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        self._timer = None
        self._ends(self.seen)


class BoundedProtocol(HttpToolsProtocol):
    """A connection that is closed if a header is too slow or too large, or if nobody reads an answer.

    Anything after an answer that is not a further request is dropped, and must arrive at least as fast as `RATE`.
    """

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self._header = Watch(self.loop, self._end_header)  # counts the bytes of the header
        self._unread = Watch(self.loop, self._end_unread)  # holds the unread bytes of the answer when it began
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
        """Stop waiting: the gate limits what follows."""
        self._header.end()
        super().on_headers_complete()
        if self.parser.should_upgrade():
            self.cycle.keep_alive = False  # the parser accepts nothing after an offer of another protocol

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all timers."""
        for watch in (self._header, self._unread, self._dropped):
            watch.end()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Start to watch whether the client reads the answer."""
        super().pause_writing()
        self._unread.begin(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """Stop watching: the client has read nearly all of the answer."""
        self._unread.end()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        """Parse the data, and count the bytes of an unfinished header or those that are dropped after an answer."""
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
        """Refuse data that is not a request in the same form as all other refusals."""
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
        """Close the connection. If a request has begun and no earlier one is still being answered, answer it first."""
        self._header.end()
        if self._header.seen and (self.cycle is None or self.cycle.response_complete):
            body = json.dumps({"error": reason})
            head = f"HTTP/1.1 {status} {_WORDS[status]}\r\ncontent-type: application/json\r\nconnection: close\r\n"
            self.transport.write(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode())
        self.transport.close()


def bound_connections() -> list[Any]:
    """Make the server that this process starts use this protocol; return no further middleware."""
    auto.AutoHTTPProtocol = BoundedProtocol
    return []
