"""What a connection may take before its request has begun, and after it was answered.

uvicorn on httptools would wait for a header forever, take one of any size, keep an answer for ever for a client that
does not read it, and keep a connection for ever on which anything comes that is no further request: the rest of a body
that was refused, or empty lines. In the process that takes connections: this one, or Ray's proxy.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from uvicorn.protocols.http import auto
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from evodeploy.serving.arrivals import RATE
from evodeploy.serving.gate import HEADER_BYTES

SECONDS = 10.0  # from a connection's, or a further request's, first moment to its header's end; and without any reading
KEEP_ALIVE = 90  # seconds that a connection waits for a further request: longer than proxies keep theirs, as Ray does
MOST = 4 * HEADER_BYTES  # bytes of a header that does not end; the gate refuses smaller ones with a better sentence
_WORDS = {408: "Request Timeout", 431: "Request Header Fields Too Large"}


class BoundedProtocol(HttpToolsProtocol):
    """A connection that is closed where a header does not end in time or in size, or nobody reads an answer.

    What comes after an answer and is no further request is dropped, and must come as fast as `RATE`.
    """

    _bytes = 0
    _timer: asyncio.TimerHandle | None = None
    _unread = 0
    _reader_timer: asyncio.TimerHandle | None = None
    _dropped = 0
    _drop_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Wait for the first header."""
        super().connection_made(transport)
        self._wait()

    def on_message_begin(self) -> None:
        """Wait for the header of a request, the first or a further one."""
        super().on_message_begin()
        self._end_drop()
        if self._timer is None:
            self._wait()

    def on_headers_complete(self) -> None:
        """Wait no more: the gate bounds what follows."""
        self._end_wait()
        super().on_headers_complete()
        if self.parser.should_upgrade():
            self.cycle.keep_alive = False  # the parser takes nothing after the offer of another protocol

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._end_wait()
        self._end_watch()
        self._end_drop()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Watch whether the client reads what it is sent."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """The client has read nearly all."""
        self._end_watch()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        """Parse, and count what is of a header that has not ended."""
        waited = self._timer is not None
        super().data_received(data)
        if waited and self._timer is not None:
            self._bytes += len(data)
            if self._bytes > MOST:
                self._close(431, f"the headers are larger than {MOST} bytes")
        elif self._timer is None and self.cycle is not None and self.cycle.response_complete:
            self._dropped += len(data)
            if self._drop_timer is None:
                self._drop()

    def _wait(self) -> None:
        self._bytes = 0
        self._timer = self.loop.call_later(SECONDS, self._expire)

    def _end_wait(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        self._close(408, f"the headers did not arrive within {SECONDS:g} s")

    def _watch(self) -> None:
        self._unread = self.transport.get_write_buffer_size()
        self._reader_timer = self.loop.call_later(SECONDS, self._look)

    def _end_watch(self) -> None:
        if self._reader_timer is not None:
            self._reader_timer.cancel()
            self._reader_timer = None

    def _look(self) -> None:
        if self.transport.get_write_buffer_size() < self._unread:
            self._watch()
        else:
            self.transport.abort()

    def _drop(self) -> None:
        self._dropped = 0
        self._drop_timer = self.loop.call_later(SECONDS, self._end_or_drop)

    def _end_drop(self) -> None:
        if self._drop_timer is not None:
            self._drop_timer.cancel()
            self._drop_timer = None

    def _end_or_drop(self) -> None:
        if self._dropped < RATE * SECONDS:
            self.transport.close()
        else:
            self._drop()

    def _close(self, status: int, reason: str) -> None:
        """Close, with an answer where a request has begun and none before it is still being answered."""
        self._end_wait()
        if self._bytes and (self.cycle is None or self.cycle.response_complete):
            body = json.dumps({"error": reason})
            head = f"HTTP/1.1 {status} {_WORDS[status]}\r\ncontent-type: application/json\r\nconnection: close\r\n"
            self.transport.write(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode())
        self.transport.close()


def bound_connections() -> list[Any]:
    """Let the server that this process starts take connections so; it gets no further middleware."""
    auto.AutoHTTPProtocol = BoundedProtocol
    return []
