"""HEAD requests, answered like GET without the body (RFC 9110, 9.3.2): FastAPI's routes know only GET."""

from __future__ import annotations

from typing import Any


class Heads:
    """An ASGI middleware that asks the application for GET instead of HEAD, and sends only the answer's headers."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass the request on, a HEAD request as GET."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def sent(message: Any) -> None:
            await send(message | {"body": b""} if message["type"] == "http.response.body" else message)

        await self._app(scope | {"method": "GET"}, receive, sent)
