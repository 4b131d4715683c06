"""The life of a service: start, update while it runs, and stop when its last request is answered."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evodeploy.artefacts import Fingerprint, fingerprint
from evodeploy.engines.device import cuda_index
from evodeploy.engines.torch_modes import TORCH_MODES
from evodeploy.errors import UsageError, needs
from evodeploy.machine.cores import usable_cores
from evodeploy.serving.settings import Settings
from evodeploy.serving.worker import named, open_served

_log = logging.getLogger(__name__)

LOOK_EVERY = 0.5  # seconds


@dataclass(frozen=True)
class Service:
    """A running service: the model `name` of `artefact`, run by `engine`, at `address`; Prometheus reads `metrics`.

    On a joined Ray, the metrics are where that Ray has them. `grpc` is HOST:PORT if it also answers over gRPC.
    """

    name: str
    artefact: Path
    engine: str
    address: str
    metrics: str | None
    grpc: str | None = None

    def __str__(self) -> str:
        also = f"gRPC at {self.grpc}, " if self.grpc else ""
        return f"serving {self.name} from {self.artefact} with {self.engine}: {also}{self.address}"

    def to_dict(self) -> dict[str, Any]:
        """Return the facts in a form ready for JSON."""
        return dataclasses.asdict(self) | {"artefact": str(self.artefact)}


def on_ray(settings: Settings, cluster: str | None) -> bool:
    """Return whether Ray Serve is used: for several replicas, also if only under load, and if a Ray is joined."""
    return cluster is not None or settings.most_replicas > 1


@contextmanager
def running(settings: Settings, cluster: str | None = None) -> Iterator[Service]:
    """Run a service until the body ends. Then no more requests are accepted, and those that have begun are answered.

    It runs in this process, or on Ray Serve if `on_ray` is true. `cluster` is the address of a Ray to join.
    Raises UsageError if the port or the Ray is already in use or a setting does not fit this way of serving,
    RuntimeFailedError if Ray or the artefact does not start, and the errors of `open_engine`.
    """
    settings = _shared_out(settings)
    with contextlib.ExitStack() as stack:
        if not on_ray(settings, cluster):
            with needs("serve"):
                from evodeploy.serving import embedded
            address, grpc, opened = stack.enter_context(embedded.running(settings))
            service = _service(opened, address, f"{address}/metrics", grpc)
        else:
            from evodeploy.serving import ray_serve

            settings, files = _tried(settings)
            metrics = stack.enter_context(ray_serve.running(settings, files, cluster))
            service = _service(settings, f"http://{settings.url_host}:{settings.port}", metrics)
        metrics = service.metrics or "where the Ray that it joined has them"
        _log.info("%s answers; Prometheus metrics: %s", service.address, metrics)
        if service.grpc is not None:
            _log.info("%s answers by gRPC", service.grpc)
        yield service


def update(settings: Settings, cluster: str | None = None) -> Service:
    """Make the service that runs on Ray on this machine, or on `cluster`, serve `settings.artefact` instead.

    No request is lost. Raises UsageError if no service runs, or if it was started with other settings: only the
    artefact, its engine and the engine's options may differ.
    """
    from evodeploy.serving import ray_serve

    settings, files = _tried(_shared_out(settings))
    metrics = ray_serve.update(settings, files, cluster)
    return _service(settings, f"http://{settings.url_host}:{settings.port}", metrics)


def until_stopped(announce: Callable[[], None]) -> None:
    """Call `announce` and return at Ctrl-C or SIGTERM, even if it arrives during that call."""
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    announce()
    # Python handles signals in the main thread, and one that another thread receives does not wake it: so it polls.
    while not stopped.wait(LOOK_EVERY):
        pass


def _shared_out(settings: Settings) -> Settings:
    """Return `settings` with absolute paths, and with the cores divided among the replicas."""
    threads = settings.options.threads or max(1, usable_cores() // settings.most_replicas)
    cache = settings.options.cache and settings.options.cache.absolute()  # replicas have different working folders
    options = dataclasses.replace(settings.options, threads=threads, cache=cache)
    return dataclasses.replace(settings, artefact=settings.artefact.resolve(), options=options)


def _tried(settings: Settings) -> tuple[Settings, Fingerprint]:
    """Open the engine as a trial. Return `settings` with the names that it gives, and the files it was opened from.

    Raises UsageError if replicas would have GPUs that the engine does not use, or a GPU that Ray did not choose.
    """
    if settings.gpus and cuda_index(settings.options.device):
        raise UsageError(f"--device is {settings.options.device}, and Ray chooses the GPU of a replica: give cuda")
    files = fingerprint(settings.artefact)
    with open_served(settings) as opened:
        by_itself = opened.name in TORCH_MODES and settings.options.device is None  # uses any GPU that a replica has
        if settings.gpus and opened.device == "cpu" and not by_itself:
            raise UsageError(f"replicas would have GPUs, and {opened.name} computes on the CPU: give --device cuda too")
        return named(settings, opened), files


def _service(settings: Settings, address: str, metrics: str | None, grpc: str | None = None) -> Service:
    assert settings.name is not None
    assert settings.engine is not None
    return Service(settings.name, settings.artefact, settings.engine, address, metrics, grpc)
