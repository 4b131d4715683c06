"""`evodeploy profile`."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated

import typer

import evodeploy
from evodeploy.cli import options, values
from evodeploy.cli.console import Force, Json, answer, saved
from evodeploy.cli.values import whole
from evodeploy.files import claimed
from evodeploy.kinds import DRAWING, PAGE, REPORT, suffix_of
from evodeploy.specs import EngineOptions


# The layers of a CUDA graph have no separate times, and none of the profiled runtimes has the option tf32.
@functools.partial(options.opens_engine, without=("cuda_graph", "tf32"))
def profile(
    context: typer.Context,
    file: Annotated[Path, values.artefact("An ONNX file, or a TensorRT engine on a machine with its GPU.")],
    batch: Annotated[int, whole("--batch", 1, values.BATCH, "Images in each run.")] = 1,
    keep_ratio: options.KeepRatio = None,
    other_ratio: Annotated[
        str | None, typer.Option(metavar="RATIO", help="A second keep ratio, profiled in turn with the first.")
    ] = None,
    runs: Annotated[int, whole("--runs", 1, 1000, "Runs with the profiler, and as many without, in turn.")] = 20,
    images: options.Images = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the JSON document here too.")] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Draw blocks, modules and nodes by their time: a name in .svg or .html.")
    ] = None,
    engine: options.EngineName = None,
    how: EngineOptions = options.ENGINE_OPTIONS,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Show where the time of a run goes, block by block.

    Also by kind of work and by node, as the runtime's profiler says.
    """
    drawn = PAGE if picture is not None and suffix_of(picture) in PAGE.suffixes else DRAWING
    outputs = [(path, kind) for path, kind in ((output, REPORT), (picture, drawn)) if path is not None]
    context.with_resource(claimed(outputs, force, file))
    found = evodeploy.profile(
        file,
        engine=engine,
        options=how,
        batch=batch,
        keep_ratio=values.ratios(keep_ratio),
        other_ratio=values.ratios(other_ratio, "--other-ratio"),
        runs=runs,
        images=images,
    )
    saved(found, outputs, force, lambda: answer(found, as_json))
