"""The service's endpoints, on anything that computes: so they are tested without Ray."""

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
    """The service of the model `name`; `backend` is asked for at each request, so that it may be replaced.

    Requests beyond `limits` get 413, 429 with Retry-After, 431 or 504; without the `token`, where there is one, 401;
    to another host than the `hosts`, where they are given, 421. With `metrics` all
    requests are counted, and an endpoint gives the counts to clients that have the token. `room` is what requests by
    another protocol take from too.
    """
    app = FastAPI(
        title=f"evodeploy: {name}", version=__version__, docs_url=None, redoc_url=None,
        description="Images to classes, and tensors by the Open Inference Protocol v2.",
    )  # fmt: skip
    unlimited = frozenset({counts.PATH})
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
        """Whether the process answers."""
        return {"live": True}

    @app.get("/v2/health/ready", tags=["health"], responses={503: openapi.REFUSALS[503]})
    async def ready() -> dict[str, bool]:
        """Whether the model is there."""
        backend()
        return {"ready": True}

    @app.get("/v2", tags=[tensors.PROTOCOL])
    async def server() -> dict[str, Any]:
        """What this server is."""
        return {"name": "evodeploy", "version": __version__, "extensions": ["binary_tensor_data"]}

    app.include_router(tensors.routes(backend, name))
    app.include_router(images.routes(backend, limits))
    app.include_router(pages.routes())
    plain = app.openapi

    def described() -> dict[str, Any]:
        try:
            here = backend()
        except EvodeployError:  # health says why the model is not there
            return plain()
        return openapi.with_samples(plain(), here, name, token is not None)

    app.openapi = described  # type: ignore[method-assign]
    return app
