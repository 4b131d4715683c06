"""A service on Ray: its replicas can be updated while they run, and stop when the last request is answered."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from evodeploy.artefacts import Fingerprint
from evodeploy.cluster import LOOPBACK, found_ray, joined_ray, own_ray
from evodeploy.errors import RuntimeFailedError, UsageError, needs
from evodeploy.serving.arrivals import RATE
from evodeploy.serving.ports import check_free
from evodeploy.serving.settings import Settings
from evodeploy.text import raised, reason

APPLICATION = NAMESPACE = "evodeploy"
REPLACED = {"artefact", "engine", "options"}  # settings that an update may change; all others must stay
METRICS_PORT = 8099  # the default for a Ray that is started here
ANSWER = 30  # seconds in which a replica must report its settings
STORE = 80 << 20  # bytes of Ray's object store: the minimum, since requests do not use it
VARIABLES = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "evodeploy.serving.connections:bound_connections"}


@contextmanager
def running(settings: Settings, files: Fingerprint, cluster: str | None = None) -> Iterator[str | None]:
    """Run a service as `service.running` describes it, on Ray; yield the address of its metrics, None on a joined Ray.

    It starts its own Ray on this machine, or joins the Ray at the address `cluster` without touching anything else
    that runs there. Raises UsageError if a port or that Ray is already in use, RuntimeFailedError if Ray or the
    artefact does not start.
    """
    _check_offered(settings, cluster)
    if cluster is None:
        if settings.port == _metrics_port(settings):
            raise UsageError(f"requests and metrics would share port {settings.port}: choose another --metrics-port")
        check_free(settings.host, settings.port, "--port")
        check_free(LOOPBACK, _metrics_port(settings), "--metrics-port")
    _import_ray()
    with _ray(settings, cluster):
        if cluster is not None:
            _check_joined(settings, cluster)
        _listen(settings)
        try:
            _deploy(settings, files)
            yield _metrics(settings, cluster)
        finally:
            _delete()


def update(settings: Settings, files: Fingerprint, cluster: str | None = None) -> str | None:
    """Update the service, see `service.update`; return the address of the metrics. Only `REPLACED` may differ."""
    _check_offered(settings, cluster)
    _import_ray()
    from ray import serve

    none = UsageError(f"no service on Ray runs here on port {settings.port}: start one with `serve --replicas N`")
    with _joined(settings, cluster) as found:
        if not found or APPLICATION not in serve.status().applications:
            raise none
        before = _settings_of(serve.get_app_handle(APPLICATION))
        kept = [each.name for each in dataclasses.fields(Settings) if each.name not in REPLACED]
        other = [name for name in kept if getattr(before, name) != getattr(settings, name)]
        if other:
            raise UsageError(
                f"an update keeps the service's options, and these differ: {', '.join(other)}; give those that it was "
                "started with"
            )
        _deploy(settings, files)
    return _metrics(settings, cluster)


def _settings_of(service: Any) -> Settings:
    """Return the settings with which the `service` was started. Raises RuntimeFailedError if no replica answers."""
    try:
        settings: Settings = service.current_settings.remote().result(timeout_s=ANSWER)
    except Exception as error:  # Ray passes on the errors of its parts and of replicas
        raise RuntimeFailedError(
            f"no replica of the service says what it was started with ({reason(error)}): look at its log, or stop "
            "it and start it again"
        ) from error
    return settings


def _check_offered(settings: Settings, cluster: str | None) -> None:
    """Raise UsageError for options that only one process offers, and for a metrics port if a Ray is joined."""
    asked = {"TLS": settings.tls is not None, "port 0": settings.port == 0, "gRPC": settings.grpc_port is not None}
    for what in (what for what, is_asked in asked.items() if is_asked):
        raise UsageError(f"{what} is for one process without Ray: put a proxy before Ray, or leave replicas out")
    if cluster is not None and settings.metrics_port is not None:
        raise UsageError(f"the Ray at {cluster} has a metrics port already: leave --metrics-port out")


def _import_ray() -> None:
    with needs("ray"):
        import ray  # noqa: F401
        from ray import serve  # noqa: F401
    logging.getLogger("ray.serve").setLevel(logging.ERROR)


def _ray(settings: Settings, cluster: str | None) -> AbstractContextManager[None]:
    """Return a context manager for the Ray on which the service runs."""
    if cluster is not None:
        return joined_ray(cluster, namespace=NAMESPACE)
    return own_ray(
        _name(settings),
        VARIABLES,
        namespace=NAMESPACE,
        num_cpus=settings.most_replicas + 1,  # places for replicas, and one more for updates; not threads
        object_store_memory=STORE,
        _metrics_export_port=_metrics_port(settings),
    )


@contextmanager
def _joined(settings: Settings, cluster: str | None) -> Iterator[bool]:
    if cluster is None:
        with found_ray(_name(settings), namespace=NAMESPACE) as found:
            yield found
    else:
        with joined_ray(cluster, namespace=NAMESPACE):
            yield True


def _check_joined(settings: Settings, cluster: str) -> None:
    """Raise UsageError if the Ray has a service of evodeploy, its Serve listens elsewhere, or the port is taken."""
    from ray import serve

    running = _running_serve()
    if running is None:
        check_free(settings.host, settings.port, "--port")
        return
    if APPLICATION in serve.status().applications:
        raise UsageError(f"a service runs on the Ray at {cluster} already: stop it, or give it this file with --update")
    if running != (settings.host, settings.port):
        host, port = running
        raise UsageError(
            f"Serve of the Ray at {cluster} listens on {host}:{port}, and a Ray has only one address: give "
            f"--host {host} --port {port}"
        )


def _running_serve() -> tuple[str, int] | None:
    """Return the host and port of Serve on the joined Ray, or None if it does not run there."""
    from ray.serve.context import _get_global_client

    client: Any = _get_global_client(raise_if_no_controller_running=False)
    return None if client is None else (client.http_config.host, client.http_config.port)


def _metrics_port(settings: Settings) -> int:
    return METRICS_PORT if settings.metrics_port is None else settings.metrics_port


def _metrics(settings: Settings, cluster: str | None) -> str | None:
    return None if cluster is not None else f"http://{LOOPBACK}:{_metrics_port(settings)}/metrics"


def _name(settings: Settings) -> str:
    return f"serve-{settings.port}"


def _listen(settings: Settings) -> None:
    from ray import serve

    slowest = settings.limits.body / RATE  # seconds for the largest body; the gate ends everything else earlier
    timeout = slowest + 2 * settings.limits.seconds
    http = {"host": settings.host, "port": settings.port, "request_timeout_s": timeout}
    try:
        serve.start(http_options=http, logging_config={"enable_access_log": False})
    except Exception as error:
        raise RuntimeFailedError(f"Ray Serve cannot start here: {reason(error)}") from error


def _deploy(settings: Settings, files: Fingerprint) -> None:
    from ray import serve

    from evodeploy.serving.replica import deployment

    try:
        serve.run(deployment(settings, files), name=APPLICATION, route_prefix="/", blocking=False)
    except Exception as error:
        raise RuntimeFailedError(f"the service does not start: {_of_replica() or reason(error)}") from error


def _of_replica() -> str | None:
    """Return why the last replica did not start, from the end of the traceback in its deployment, or None."""
    from ray import serve

    try:
        messages = [each.message for each in serve.status().applications[APPLICATION].deployments.values()]
    except Exception:  # Ray passes on the errors of its parts: in that case there is no deployment
        return None
    return raised("".join(messages)) or None


def _delete() -> None:
    """Wait until the replicas have answered. The proxy is still running and refuses new requests."""
    from ray import serve

    serve.delete(APPLICATION)
