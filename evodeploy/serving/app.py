"""The endpoints of the service. They run on any backend, so they are tested without Ray."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI

from evodeploy import __version__
from evodeploy.errors import EvodeployError
from evodeploy.serving import images, openapi, pages, tensors
from evodeploy.serving import metrics as counts
from evodeploy.serving.backend import Backend
from evodeploy.serving.gate import Gate, Room
from evodeploy.serving.heads import Heads
from evodeploy.serving.hosts import HostGate
from evodeploy.serving.metrics import Metrics
from evodeploy.serving.refusals import answer_errors
from evodeploy.serving.settings import Limits

OPEN = pages.PATHS | {"/v2/health/live", "/v2/health/ready", "/openapi.json"}


def create_app(
    backend: Callable[[], Backend],
    name: str,
    limits: Limits,
    token: str | None = None,
    hosts: frozenset[str] | None = None,
    metrics: Metrics | None = None,
    room: Room | None = None,
) -> FastAPI:
    """Create the service of the model `name`. `backend` is called at each request, so that it may be replaced.

    Requests beyond `limits` get 413, 429 with Retry-After, 431 or 504. If there is a `token`, requests without it get
    401. If `hosts` are given, requests to any other host get 421. With `metrics`, all requests are counted, and an
    endpoint returns the counts to clients that have the token. Requests by another protocol may share the `room`.
    """
    app = FastAPI(
        title=f"evodeploy: {name}", version=__version__, docs_url=None, redoc_url=None,
        description="Images to classes, and tensors by the Open Inference Protocol v2.",
    )  # fmt: skip
    unlimited, room = frozenset({counts.PATH}), room or Room(limits)
    app.add_middleware(Gate, limits=limits, token=token, exempt=OPEN, unlimited=unlimited, room=room)
    if hosts is not None:
        app.add_middleware(HostGate, hosts=hosts)
    if metrics is not None:
        app.add_middleware(counts.Measured, metrics=metrics)
        app.include_router(counts.routes(metrics))
    app.add_middleware(Heads)
    answer_errors(app)

    @app.get("/v2/health/live", tags=["health"])
    async def live() -> dict[str, bool]:
        """Return whether the process answers."""
        return {"live": True}

    @app.get("/v2/health/ready", tags=["health"], responses={503: openapi.REFUSALS[503]})
    async def ready() -> dict[str, bool]:
        """Return whether the model is ready."""
        backend()
        return {"ready": True}

    @app.get("/v2", tags=[tensors.PROTOCOL])
    async def server() -> dict[str, Any]:
        """Describe this server."""
        return {"name": "evodeploy", "version": __version__, "extensions": ["binary_tensor_data"]}

    app.include_router(tensors.routes(backend, name, room))
    app.include_router(images.routes(backend, limits, room))
    app.include_router(pages.routes())
    plain = app.openapi

    def described() -> dict[str, Any]:
        try:
            here = backend()
        except EvodeployError:  # the health endpoint gives the reason
            return plain()
        return openapi.with_samples(plain(), here, name, token is not None)

    app.openapi = described  # type: ignore[method-assign]
    return app
