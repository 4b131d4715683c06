"""What a replica does: it holds an engine and runs requests together."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
import ray
from fastapi import FastAPI
from ray import serve
from ray.util.metrics import Counter, Histogram

from evodeploy.artefacts import fingerprint
from evodeploy.cluster import LOOPBACK
from evodeploy.engines.base import Array, run_all
from evodeploy.engines.opener import open_engine
from evodeploy.errors import BadFileError, EvodeployError
from evodeploy.inference.batcher import Batcher
from evodeploy.preprocess import as_input, random_pictures
from evodeploy.serving.app import create_app
from evodeploy.serving.gate import BODIES
from evodeploy.serving.hosts import allowed_hosts
from evodeploy.serving.refusals import NotReadyError
from evodeploy.serving.settings import Settings
from evodeploy.specs import EngineOptions, ModelInfo


class Replica:
    """One engine behind a queue that runs requests together.

    For another artefact Ray starts new replicas and drains these. A replica that finds another file in the artefact's
    place has a `refusal` and no engine: one that failed to start would leave requests waiting while Ray tries again.
    """

    def __init__(self, settings: Settings) -> None:
        _listen_on_loopback()
        self._settings = settings
        self.refusal = _refusal(settings)
        if self.refusal is not None:
            return
        self._engine = open_engine(settings.artefact, settings.engine, EngineOptions(threads=settings.threads))
        if self._engine.info is None:
            raise BadFileError(f"{settings.artefact} carries no evodeploy metadata")
        self.info: ModelInfo = self._engine.info
        self.inputs, self.outputs, self.engine = self._engine.inputs, self._engine.outputs, self._engine.name
        for size in range(1, settings.max_batch + 1):  # what a runtime sets up for a batch size, before requests wait
            if size in self._engine.batch:
                self._engine.run(as_input(random_pictures(self.info, size), self.info))
        # Not Ray's own batching: it forms batches while the engine is busy, of what comes within the wait alone.
        self._batcher = Batcher(
            lambda images: images, self._compute, preparers=1, largest=settings.max_batch, patience=settings.max_wait
        )
        self._images = Counter("evodeploy_images", "Images computed.")
        self._batch = Histogram("evodeploy_batch_images", "Images in a run.", boundaries=[1, 2, 4, 8, 16, 32, 64, 128])
        self._seconds = Histogram(
            "evodeploy_run_seconds", "Seconds of a run.", boundaries=[0.001 * 2**power for power in range(15)]
        )

    def current_settings(self) -> Settings:
        """What this replica was started with, for an update to compare with."""
        return self._settings

    async def run(self, images: Array) -> dict[str, Array]:
        """See `backend.Backend`."""
        return await asyncio.wrap_future(self._batcher.submit(images))

    def _compute(self, requests: list[Array]) -> list[dict[str, Array]]:
        images = np.concatenate(requests)
        began = time.perf_counter()
        outputs = run_all(self._engine, images, self._settings.max_batch)
        self._seconds.observe(time.perf_counter() - began)
        self._batch.observe(len(images))
        self._images.inc(len(images))
        ends = np.cumsum([len(request) for request in requests])[:-1]
        parts = {name: np.split(value, ends) for name, value in outputs.items()}
        return [{name: split[i] for name, split in parts.items()} for i in range(len(requests))]


def _listen_on_loopback() -> None:
    """Keep the port that Ray opens in a replica, on all interfaces, on this machine where all of Ray is."""
    from ray.serve._private import replica

    if ray.util.get_node_ip_address() == LOOPBACK:
        add_port = replica.add_port_to_grpc_server
        replica.add_port_to_grpc_server = lambda server, address: add_port(server, address.replace("[::]", LOOPBACK))


def ready(replica: Replica) -> Replica:
    """`replica` itself; raises NotReadyError with its refusal."""
    if replica.refusal is not None:
        raise NotReadyError(replica.refusal)
    return replica


def _refusal(settings: Settings) -> str | None:
    """Why the files in the artefact's place must not be served."""
    path = settings.artefact
    try:
        found = dict(fingerprint(path))
    except (OSError, EvodeployError) as error:
        return f"{path} cannot be read any more ({error})"
    other = [(name, digest) for name, digest in settings.fingerprint if found.get(name) != digest]
    if not other:
        return None
    name, expected = other[0]
    return (
        f"{path.parent / name} is not the file that the service was started with ({_shown(found.get(name))}, expected "
        f"{_shown(expected)}): take the new one with `evodeploy serve {path.name} --update`, or put the old one "
        "back and start the service again"
    )


def _shown(sha256: str | None) -> str:
    return f"SHA-256 {sha256[:12]}…" if sha256 else "no file"


def deployment(settings: Settings) -> serve.Application:
    """`settings` as an application of Ray Serve."""
    name, limits, token = settings.name, settings.limits, settings.token
    hosts = allowed_hosts(settings.host, settings.allow_hosts) if token is None else None

    def build() -> FastAPI:
        return create_app(lambda: ready(serve.get_replica_context().servable_object), name, limits, token, hosts)

    grows = settings.max_replicas is not None
    options: dict[str, Any] = {
        "name": "evodeploy",
        "ray_actor_options": {"num_cpus": 1, "num_gpus": settings.gpus},
        "max_ongoing_requests": limits.admitted + BODIES + 32,  # more than the gate takes: it refuses, Ray would wait
        "graceful_shutdown_timeout_s": limits.seconds,
        "graceful_shutdown_wait_loop_s": 0.2,
        "health_check_period_s": 5,
        "max_surge_percent": 1,  # rounded up to one: in an update none stops before another is ready
        "logging_config": {"enable_access_log": False},
    }
    if grows:
        options["autoscaling_config"] = {
            "min_replicas": settings.replicas,
            "max_replicas": settings.max_replicas,
            "target_ongoing_requests": settings.max_batch,
        }
    else:
        options["num_replicas"] = settings.replicas
    replica: Any = serve.deployment(serve.ingress(build)(Replica))
    application: serve.Application = replica.options(**options).bind(settings)
    return application
