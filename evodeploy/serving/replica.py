"""A worker that Ray Serve runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray
from fastapi import FastAPI
from ray import serve
from ray.util.metrics import Counter, Histogram

from evodeploy.artefacts import Fingerprint, fingerprint
from evodeploy.cluster import LOOPBACK
from evodeploy.errors import EvodeployError
from evodeploy.serving.app import create_app
from evodeploy.serving.gate import BODIES
from evodeploy.serving.hosts import hosts_for
from evodeploy.serving.metrics import counted_runs
from evodeploy.serving.refusals import NotReadyError
from evodeploy.serving.settings import Settings
from evodeploy.serving.worker import Worker, open_served


class Replica(Worker):
    """A worker with Ray metrics.

    For another artefact, Ray starts new replicas and drains these. If a replica finds another file in place of the
    artefact, it has a `refusal` and no engine. If it failed to start, requests would wait while Ray tries again.
    """

    def __init__(self, settings: Settings, files: Fingerprint) -> None:
        _listen_on_loopback()
        self._settings = settings
        self.refusal = _refusal(settings.artefact, files)
        if self.refusal is not None:
            return
        engine = open_served(settings)
        self.refusal = _refusal(settings.artefact, files)  # the file may have been replaced while it was opened
        if self.refusal is not None:
            engine.close()
            return
        counted = counted_runs(Counter, lambda name, what, ends: Histogram(name, what, boundaries=list(ends)))
        super().__init__(engine, settings, counted)

    def current_settings(self) -> Settings:
        """Return the settings with which this replica was started, for an update to compare."""
        return self._settings


def _listen_on_loopback() -> None:
    """Bind the port that Ray opens in a replica to loopback, not to all interfaces, if Ray is on this machine only."""
    from ray.serve._private import replica

    if ray.util.get_node_ip_address() == LOOPBACK:
        add_port = replica.add_port_to_grpc_server
        replica.add_port_to_grpc_server = lambda server, address: add_port(server, address.replace("[::]", LOOPBACK))


def ready(replica: Replica) -> Replica:
    """Return `replica`. Raises NotReadyError if it has a refusal."""
    if replica.refusal is not None:
        raise NotReadyError(replica.refusal)
    return replica


def _refusal(path: Path, files: Fingerprint) -> str | None:
    """Return why the artefact at `path` must not be served, or None if it still consists of these `files`."""
    try:
        found = dict(fingerprint(path))
    except (OSError, EvodeployError) as error:
        return f"{path} cannot be read any more ({error})"
    other = [(name, digest) for name, digest in files if found.get(name) != digest]
    if not other:
        return None
    name, expected = other[0]
    return (
        f"{path.parent / name} is not the file that the service was started with ({_shown(found.get(name))}, expected "
        f"{_shown(expected)}): take the new one with `evodeploy serve {path.name} --update` and the options of the "
        "start, or put the old one back and start the service again"
    )


def _shown(sha256: str | None) -> str:
    return f"SHA-256 {sha256[:12]}…" if sha256 else "no file"


def deployment(settings: Settings, files: Fingerprint) -> serve.Application:
    """Create the Ray Serve application for `settings` and an artefact that consists of these `files`."""
    assert settings.name is not None
    name, limits, token = settings.name, settings.limits, settings.token
    hosts = hosts_for(settings)

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
        "max_surge_percent": 1,  # rounded up to one: in an update no replica stops before another is ready
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
    application: serve.Application = replica.options(**options).bind(settings, files)
    return application
