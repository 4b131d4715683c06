"""The web page and the page that describes the endpoints: files of `page/`, which load nothing from elsewhere.

The sample image is a seven, drawn for the page.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse

PAGE = files("evodeploy.serving") / "page"
DOCUMENTS = {"/": "index.html", "/docs": "api.html"}
ASSETS = {"page.js": "text/javascript", "page.css": "text/css", "api.js": "text/javascript", "sample.png": "image/png"}
PATHS = frozenset([*DOCUMENTS, *(f"/{name}" for name in ASSETS)])
POLICY = "default-src 'self'; img-src 'self' blob: data:; style-src 'self'; frame-ancestors 'none'"


def routes() -> APIRouter:
    """Create the endpoints of the pages and of the files that they load."""
    router = APIRouter(include_in_schema=False)
    for path, name in DOCUMENTS.items():
        router.get(path)(_document(name))
    for name, kind in ASSETS.items():
        router.get(f"/{name}")(_asset(name, kind))
    return router


def _document(name: str) -> Callable[[], Awaitable[Response]]:
    headers = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"}

    async def document() -> Response:
        return HTMLResponse((PAGE / name).read_text("utf-8"), headers=headers)

    return document


def _asset(name: str, kind: str) -> Callable[[], Awaitable[Response]]:
    async def asset() -> Response:
        return Response((PAGE / name).read_bytes(), media_type=kind)

    return asset
