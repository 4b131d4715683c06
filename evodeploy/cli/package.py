"""`evodeploy package`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

import evodeploy
from evodeploy.cli import values
from evodeploy.cli.console import Force, Json, answer
from evodeploy.cli.values import whole


def package(
    artefact: Annotated[Path, typer.Argument(help="An ONNX file or a TensorRT engine.")],
    triton: Annotated[Path, typer.Option(help="The folder for models/ and manifests/; other models in it stay.")],
    name: Annotated[str | None, typer.Option(help="The model's name; the file's by default.")] = None,
    version: Annotated[
        int, whole("--version", 1, 10**9, "The version to write; others with the same inputs and outputs stay.")
    ] = 1,
    ensemble: Annotated[
        bool,
        typer.Option(
            "--ensemble", help="Also write NAME-images: image files in, labels out. Triton's Python needs evodeploy."
        ),
    ] = False,
    top: Annotated[
        int | None, whole("--top", 1, values.CLASSES, "With --ensemble: classes named; 5 by default.")
    ] = None,
    device: Annotated[
        Literal["cpu", "gpu"] | None,
        typer.Option(help="Where to run an ONNX file, cpu by default. Engines run on gpu."),
    ] = None,
    instances: Annotated[int, whole("--instances", 1, 1024, "Copies of the model on each device.")] = 1,
    max_batch: Annotated[
        int | None,
        whole("--max-batch", 1, values.BATCH, "Largest batch; the engine's, or 32 of an ONNX file, by default."),
    ] = None,
    max_queue_delay_us: Annotated[
        int | None,
        whole(
            "--max-queue-delay-us", 0, 10**8, "Microseconds a request may wait for others in a batch; 500 by default."
        ),
    ] = None,
    accelerator: Annotated[
        Literal["tensorrt", "openvino"] | None,
        typer.Option(help="What ONNX Runtime runs an ONNX file with: tensorrt on --device gpu, openvino on cpu."),
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write a model repository for Triton Inference Server.

    Kubernetes manifests are written into the same folder.
    """
    written = evodeploy.package(
        artefact,
        triton,
        name=name,
        version=version,
        device=device,
        instances=instances,
        max_batch=max_batch,
        max_wait=None if max_queue_delay_us is None else max_queue_delay_us / 1e6,
        accelerator=accelerator,
        ensemble=ensemble,
        top=top,
        force=force,
    )
    answer(written, as_json)
