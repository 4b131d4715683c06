"""`evodeploy bisect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

import evodeploy
from evodeploy.cli import values
from evodeploy.cli.console import Force, Json, answer
from evodeploy.cli.values import whole


def bisect(
    onnx: Annotated[Path, typer.Argument(help="The ONNX file that does not build.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where to write the part that is refused. Default: next to the ONNX."),
    ] = None,
    precision: Annotated[
        Literal["fp16", "bf16"] | None,
        typer.Option(help="Convert floats to this precision first, as build-engine does."),
    ] = None,
    runtime: Annotated[str | None, typer.Option(help="tensorrt or tensorrt-rtx; what is installed by default.")] = None,
    target: Annotated[
        str | None, typer.Option(help="GPU architectures, such as sm89,sm120. Default: the GPU here, else all.")
    ] = None,
    batch: Annotated[int, whole("--batch", 1, values.BATCH, "Batch size, for a file whose batch is dynamic.")] = 2,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Find the smallest part of a network that TensorRT refuses.

    It is written as an ONNX file.
    """
    found = evodeploy.bisect(
        onnx,
        output,
        precision=precision,
        runtime=runtime,
        targets=values.names("--target", target.lower()) if target else (),
        batch=batch,
        force=force,
    )
    answer(found, as_json)
