"""`evodeploy serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evodeploy.cli import options, token, values
from evodeploy.cli.console import Json, answer, note, result, result_json
from evodeploy.cli.values import real, whole
from evodeploy.specs import EngineOptions


@options.opens_engine
def serve(
    artefact: Annotated[Path, values.artefact("A checkpoint, an ONNX file, an engine or a deploy file.")],
    max_batch: Annotated[int, whole("--max-batch", 1, values.BATCH, "Images run together, at most.")] = 16,
    max_wait_ms: Annotated[
        float, real("--max-wait-ms", 0, 60_000, "Milliseconds that a request waits for others, at most.")
    ] = 5.0,
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 for all of the network.")] = "127.0.0.1",
    port: Annotated[int, whole("--port", 0, 65535, "Where to listen; 0 for any port that is free.")] = 8000,
    grpc_port: Annotated[
        int | None, whole("--grpc-port", 0, 65535, "Listen for gRPC too, not with Ray; 0 for any port that is free.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The model's name in addresses; its own by default.")] = None,
    engine: options.EngineName = None,
    how: EngineOptions = options.ENGINE_OPTIONS,
    max_upload: Annotated[int, whole("--max-upload", 1, 4096, "Megabytes of a request, at most.")] = 16,
    max_pixels: Annotated[int, whole("--max-pixels", 1, 178, "Millions of pixels of an image, at most.")] = 50,
    max_ongoing: Annotated[
        int, whole("--max-ongoing", 1, 100_000, "Requests that a replica has at once; more get 429.")
    ] = 64,
    timeout: Annotated[
        float, real("--timeout", 0.001, values.SECONDS, "Seconds that a request may stall, or wait for its answer.")
    ] = 30.0,
    token_file: token.File = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Another host that requests may name, if no token is required.")
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(help="A certificate in PEM: serve HTTPS, and gRPC by TLS; not with Ray.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="The certificate's private key in PEM.")] = None,
    target_p99: Annotated[
        float | None,
        real("--target-p99", 1, 60_000, "Milliseconds in which 99 of 100 are answered, by keeping fewer tokens."),
    ] = None,
    keep_ratio: Annotated[
        str | None, typer.Option(help="With --target-p99, the shares of tokens to keep: LOW:HIGH, 0.3:1 by default.")
    ] = None,
    replicas: Annotated[
        int, whole("--replicas", 1, 256, "Processes with an engine each; from 2 on, Ray runs them.")
    ] = 1,
    max_replicas: Annotated[
        int | None, whole("--max-replicas", 1, 256, "Let Ray start up to this number of replicas under load.")
    ] = None,
    gpus: Annotated[
        float, real("--gpus", 0, 64, "With Ray, GPUs of each replica, or a share of one such as 0.5.")
    ] = 0.0,
    metrics_port: Annotated[
        int | None,
        whole("--metrics-port", 1, 65535, "The port of metrics of the Ray that it starts, 8099 by default."),
    ] = None,
    ray: options.Ray = None,
    update: Annotated[
        bool,
        typer.Option("--update", help="Replace the artefact of the running service on Ray; no request is lost."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Serve an artefact over HTTP and gRPC.

    Images and a web page over HTTP, tensors by the Open Inference Protocol over both. One process serves, with one
    engine. With --replicas, --max-replicas or --ray it is Ray Serve.
    """
    from evodeploy.serving import service
    from evodeploy.serving.budget import budget_of
    from evodeploy.serving.settings import Limits, Settings, tls_of

    settings = Settings(
        artefact,
        name=name,
        engine=engine,
        options=how,
        replicas=replicas,
        max_replicas=max_replicas,
        max_batch=max_batch,
        max_wait=max_wait_ms / 1000,
        host=host,
        port=port,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        gpus=gpus,
        limits=Limits(max_upload << 20, max_pixels * 1_000_000, timeout, max_ongoing),
        allow_hosts=tuple(sorted(allow_host or ())),
        token=token.read(token_file),
        tls=tls_of(tls_cert, tls_key),
        budget=budget_of(target_p99, values.ratio_range("--keep-ratio", keep_ratio, equal=True)),
    )
    if update or service.on_ray(settings, ray):
        values.for_ray(artefact, token_file)
    if update:
        updated = service.update(settings, ray)
        if as_json:
            result_json(updated.to_dict())
        else:
            result(f"{updated.name} is served from {artefact} now")
        return
    with service.running(settings, ray) as running:
        service.until_stopped(lambda: answer(running, as_json))
        note("answering the requests that have begun, then stopping")
