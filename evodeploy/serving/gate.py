"""Before any endpoint: who asks, how much they send, and how many do at once."""

from __future__ import annotations

import asyncio
import hmac
from typing import Any

from fastapi.responses import JSONResponse

from evodeploy.serving.settings import Limits


class Gate:
    """An ASGI middleware: requests within `limits` and with the `token` pass, and whatever asks for `exempt` paths."""

    def __init__(self, app: Any, limits: Limits, token: str | None, exempt: frozenset[str]) -> None:
        self._app, self._limits, self._exempt = app, limits, exempt
        self._token = f"Bearer {token}".encode() if token else None
        self._admitted = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass the request on, or answer 401, 413, 429 or 504."""
        if scope["type"] != "http" or scope["path"] in self._exempt:
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if self._token and not hmac.compare_digest(headers.get(b"authorization", b""), self._token):
            refusal = JSONResponse({"error": "a bearer token is needed"}, 401, {"WWW-Authenticate": "Bearer"})
            await refusal(scope, receive, send)
            return
        if self._admitted >= self._limits.admitted:
            await JSONResponse({"error": "too many requests at once: try again"}, 429, {"Retry-After": "1"})(
                scope, receive, send
            )
            return
        self._admitted += 1
        try:
            await self._limited(scope, receive, send, headers.get(b"content-length", b"0"))
        finally:
            self._admitted -= 1

    async def _limited(self, scope: Any, receive: Any, send: Any, length: bytes) -> None:
        """Take the whole body, within the limit, and only then let the endpoint begin."""
        refusal = JSONResponse({"error": f"the request is larger than {self._limits.body} bytes"}, 413)
        if not length.isdigit() or int(length) > self._limits.body:
            await refusal(scope, receive, send)
            return
        try:
            body = await asyncio.wait_for(self._body(receive), self._limits.seconds)
        except asyncio.TimeoutError:
            late = JSONResponse({"error": f"the request did not arrive within {self._limits.seconds:g} s"}, 504)
            await late(scope, receive, send)
            return
        if body is None:
            return
        if len(body) > self._limits.body:
            await refusal(scope, receive, send)
            return
        whole = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def received() -> Any:
            return next(whole, None) or await receive()

        await self._app(scope, received, send)

    async def _body(self, receive: Any) -> bytes | None:
        """All of it, or a little more than the limit where it is larger; None where the client left."""
        parts: list[bytes] = []
        size, more = 0, True
        while more and size <= self._limits.body:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            parts.append(message.get("body", b""))
            size, more = size + len(parts[-1]), message.get("more_body", False)
        return b"".join(parts)
