"""A service on Ray: started, updated while it runs, stopped once its last request is answered."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from evodeploy.errors import RuntimeFailedError, UsageError, needs
from evodeploy.serving.settings import Settings

APPLICATION = "evodeploy"
KEPT = ("name", "host", "port", "metrics_port", "token", "allow_hosts", "limits")
STORE = 80 << 20  # bytes of Ray's object store: Ray's least, since requests do not go through it


@contextmanager
def running(settings: Settings, tell: Callable[[str], None]) -> Iterator[None]:
    """A service that answers, until the body ends; then no request is taken any more, and those begun are answered.

    It joins the cluster of RAY_ADDRESS and leaves what else runs there alone, or starts Ray on this machine. Raises
    RuntimeFailedError with the reason where Ray or the artefact does not start.
    """
    serve = _connected(settings)
    try:
        _listen(settings)
        _deploy(settings)
        tell(
            f"http://{settings.host}:{settings.port} answers; Prometheus metrics: http://127.0.0.1:{settings.metrics_port}/metrics"
        )
        yield
    finally:
        serve.delete(APPLICATION)  # waits until replicas have answered; the proxy still stands and refuses what is new
        _disconnect()  # which ends a Ray that was started here, and leaves another's alone


def update(settings: Settings) -> None:
    """Let the service that runs on this machine or cluster serve `settings.artefact` instead, without a lost request.

    Raises UsageError where none runs, or where it was started with other of the `KEPT` settings: dropping a token or a
    limit, or changing an address, is no matter of an artefact.
    """
    none = "no service runs here: start one with `evodeploy serve`"
    os.environ.setdefault("RAY_ADDRESS", "auto")
    try:
        serve = _connected(settings)
    except RuntimeFailedError as error:
        if isinstance(error.__cause__, ConnectionError):
            raise UsageError(none) from error
        raise
    try:
        if APPLICATION not in serve.status().applications:
            raise UsageError(none)
        before: Settings = serve.get_app_handle(APPLICATION).current_settings.remote().result(timeout_s=30)
        other = [name for name in KEPT if getattr(before, name) != getattr(settings, name)]
        if other:
            raise UsageError(
                f"the service was started with another {' and '.join(other)}: give the options that it was started with"
            )
        _deploy(settings)
    finally:
        _disconnect()


def until_stopped() -> None:
    """Return at Ctrl-C or SIGTERM."""
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    stopped.wait()


def _connected(settings: Settings) -> Any:
    with needs("serve"):
        import fastapi  # noqa: F401
        import ray
        from ray import serve
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anyone unless the user says so
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "namespace": "evodeploy"}
    if not os.environ.get("RAY_ADDRESS"):
        most = settings.max_replicas or settings.replicas
        quiet |= {
            "num_cpus": most + 1,  # places for replicas, one more in an update; how many threads each has is its own
            "object_store_memory": STORE,
            "include_dashboard": False,
            "_node_ip_address": "127.0.0.1",  # else Ray's own ports are open to the network
            "_metrics_export_port": settings.metrics_port,
        }
    try:
        ray.init(**quiet)
    except Exception as error:  # Ray raises what its parts raise
        raise RuntimeFailedError(f"Ray cannot start here: {_first_line(error)}") from error
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    return serve


def _listen(settings: Settings) -> None:
    from ray import serve

    http = {"host": settings.host, "port": settings.port, "request_timeout_s": 2 * settings.limits.seconds}
    try:
        serve.start(http_options=http, logging_config={"enable_access_log": False})
    except Exception as error:
        raise RuntimeFailedError(f"Ray Serve cannot start here: {_first_line(error)}") from error


def _deploy(settings: Settings) -> None:
    from ray import serve

    from evodeploy.serving.replica import deployment

    try:
        serve.run(deployment(settings), name=APPLICATION, route_prefix="/", blocking=False)
    except Exception as error:
        raise RuntimeFailedError(f"the service does not start: {_first_line(error)}") from error


def _disconnect() -> None:
    import ray

    ray.shutdown()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
