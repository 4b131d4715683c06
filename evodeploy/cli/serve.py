"""`evodeploy serve`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

import typer

from evodeploy.cli import values
from evodeploy.cli.console import Json, note, result, result_json
from evodeploy.cli.values import real, whole
from evodeploy.machine.cores import most_threads

TOKEN_VARIABLE = "EVODEPLOY_TOKEN"
LARGEST_TOKEN = 4096  # bytes


def serve(
    artefact: Annotated[Path, values.artefact("An ONNX file, an engine or a checkpoint.")],
    replicas: Annotated[int, whole("--replicas", 1, 256, "Processes with an engine each.")] = 1,
    max_replicas: Annotated[int | None, whole("--max-replicas", 1, 256, "Let Ray start as many under load.")] = None,
    max_batch: Annotated[int, whole("--max-batch", 1, values.BATCH, "Requests run together, at most.")] = 16,
    max_wait_ms: Annotated[float, real("--max-wait-ms", 0, 60_000, "What a request waits for others, at most.")] = 5.0,
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 for all of the network.")] = "127.0.0.1",
    port: Annotated[int, whole("--port", 1, 65535, "Where to listen.")] = 8000,
    metrics_port: Annotated[int, whole("--metrics-port", 1, 65535, "Where Prometheus finds metrics.")] = 8099,
    name: Annotated[str | None, typer.Option(help="The model's name in addresses; its own by default.")] = None,
    engine: Annotated[str | None, typer.Option(help="What runs it; the first installed that can by default.")] = None,
    threads: Annotated[
        int | None,
        whole("--threads", 1, most_threads(), "CPU threads of a replica; the cores shared among them by default."),
    ] = None,
    gpus: Annotated[float, real("--gpus", 0, 64, "GPUs of a replica, also a share of one: 0.5.")] = 0.0,
    max_upload: Annotated[int, whole("--max-upload", 1, 4096, "Megabytes of a request, at most.")] = 16,
    max_pixels: Annotated[int, whole("--max-pixels", 1, 178, "Millions of pixels of an image, at most.")] = 50,
    max_ongoing: Annotated[
        int, whole("--max-ongoing", 1, 100_000, "Requests that a replica has at once; more get 429.")
    ] = 64,
    timeout: Annotated[
        float, real("--timeout", 0.001, values.SECONDS, "Seconds that a request may stall, or wait for its answer.")
    ] = 30.0,
    token_file: Annotated[
        Path | None, typer.Option(help=f"A file with the bearer token to ask for; else ${TOKEN_VARIABLE}, if set.")
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Another host that requests may name, where no token is asked for.")
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(help="Join the Ray at this address, or `auto` for the one of this machine, and start none."),
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Let the service that runs here take this artefact, losing no request.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Serve an artefact over HTTP on Ray Serve: images, tensors by the Open Inference Protocol, and a web page."""
    from evodeploy.artefacts import fingerprint
    from evodeploy.engines.opener import open_engine
    from evodeploy.errors import BadFileError
    from evodeploy.machine.cores import usable_cores
    from evodeploy.serving.service import running, until_stopped
    from evodeploy.serving.service import update as update_service
    from evodeploy.serving.settings import Limits, Settings
    from evodeploy.specs import EngineOptions

    values.for_ray(artefact, token_file, name)
    share = threads or max(1, usable_cores() // (max_replicas or replicas))
    with open_engine(artefact, engine, EngineOptions(threads=share)) as opened:  # what is wrong with it is told now
        if opened.info is None:
            raise BadFileError(
                f"{artefact} carries no evodeploy metadata: export its checkpoint with `evodeploy export`"
            )
    settings = Settings(
        artefact=artefact.resolve(),
        fingerprint=fingerprint(artefact),
        name=name or opened.info.model,
        engine=opened.name if engine is None else engine,
        threads=share,
        replicas=replicas,
        max_replicas=max_replicas,
        max_batch=max_batch,
        max_wait=max_wait_ms / 1000,
        host=host,
        port=port,
        metrics_port=metrics_port,
        gpus=gpus,
        limits=Limits(max_upload << 20, max_pixels * 1_000_000, timeout, max_ongoing),
        allow_hosts=tuple(sorted(allow_host or ())),
        token=_token(token_file),
    )
    if update:
        update_service(settings, ray)
        if as_json:
            result_json({"name": settings.name, "artefact": str(artefact)})
        else:
            result(f"{settings.name} is served from {artefact} now")
        return
    with running(settings, ray):
        address = f"http://{host}:{port}"
        if as_json:
            result_json(
                {"name": settings.name, "artefact": str(artefact), "engine": settings.engine, "address": address}
            )
        else:
            result(f"serving {settings.name} from {artefact} with {settings.engine}: {address}")
        until_stopped()
        note("answering what was begun, then stopping")


def _token(file: Path | None) -> str | None:
    from evodeploy.errors import UsageError
    from evodeploy.files import open_regular

    if file is None:
        source, token = f"${TOKEN_VARIABLE}", os.environ.get(TOKEN_VARIABLE, "")
        if not token:
            return None
    else:
        with open_regular(file, "a bearer token", LARGEST_TOKEN) as opened:
            source, token = str(file), opened.read().decode(errors="replace").strip()
    if not token:
        raise UsageError(f"{source} is empty, expected a bearer token")
    if not re.fullmatch("[!-~]+", token):  # what a header can carry
        raise UsageError(f"the token in {source} has spaces, lines or other characters: expected ASCII without")
    return token
