"""Metrics for Prometheus of a service in one process: requests by status, batches, and durations."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Response
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

PATH = "/metrics"
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)  # upper bounds of the buckets of batch sizes
SECONDS = tuple(0.001 * 2**power for power in range(15))  # upper bounds of the buckets of durations

RATIOS = tuple(step / 20 for step in range(1, 21))  # upper bounds of the buckets of keep ratios


def counted_runs(
    counter: Callable[[str, str], Any], histogram: Callable[[str, str, tuple[float, ...]], Any]
) -> Callable[[int, float, tuple[float, ...]], None]:
    """Return a function that counts a run of the engine: its images, its seconds, and the keep ratios of its stages.

    `counter` makes a counter from a name and a description; `histogram` also takes the upper bounds of the buckets.
    """
    images = counter("evodeploy_images", "Images computed.")
    batch = histogram("evodeploy_batch_images", "Images in a run.", SIZES)
    ratio = histogram("evodeploy_keep_ratio", "Mean keep ratio of stages, of each image.", RATIOS)
    run = histogram("evodeploy_run_seconds", "Seconds of a run.", SECONDS)

    def ran(count: int, seconds: float, ratios: tuple[float, ...]) -> None:
        for _ in range(count if ratios else 0):
            ratio.observe(sum(ratios) / len(ratios))
        images.inc(count)
        batch.observe(count)
        run.observe(seconds)

    return ran


class Metrics:
    """The metrics of one service. `ran` counts a run of the engine. Threads may share them."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._answers = Counter("evodeploy_requests", "Requests, by status.", ["status"], registry=self._registry)
        self._taken = self._histogram(
            "evodeploy_request_seconds", "Seconds from a POST's header to its answer, where that is 200.", SECONDS
        )
        self.ongoing = Gauge("evodeploy_requests_ongoing", "Requests not answered yet.", registry=self._registry)
        self.ran = counted_runs(functools.partial(Counter, registry=self._registry), self._histogram)

    def _histogram(self, name: str, what: str, ends: tuple[float, ...]) -> Histogram:
        return Histogram(name, what, buckets=ends, registry=self._registry)

    def answered(self, method: str, status: int, seconds: float) -> None:
        """Count an answer that was sent `seconds` after the request's header."""
        self._answers.labels(str(status)).inc()
        if method == "POST" and status == 200:
            self._taken.observe(seconds)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class Measured:
    """An ASGI middleware that counts the requests it passes."""

    def __init__(self, app: Any, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass the request on and count its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, began = 499, time.perf_counter()  # 499: the client left before it was answered

        async def sent(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with self._metrics.ongoing.track_inprogress():
            try:
                await self._app(scope, receive, sent)
            except Exception:
                status = 500 if status == 499 else status  # an outer layer answers unexpected errors
                raise
            finally:
                self._metrics.answered(scope["method"], status, time.perf_counter() - began)


def routes(metrics: Metrics) -> APIRouter:
    """Create the endpoint that Prometheus reads."""
    router = APIRouter(tags=["health"])

    @router.get(PATH, response_class=Response)
    async def measured() -> Response:
        """Return counts and durations in Prometheus' text format."""
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return router
