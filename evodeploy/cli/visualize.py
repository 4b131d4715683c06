"""`evodeploy visualize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import evodeploy
from evodeploy.cli import options, values
from evodeploy.cli.console import Force, Json, answer, progress
from evodeploy.specs import EngineOptions


@options.opens_engine
def visualize(
    artefact: Annotated[Path, values.artefact("A checkpoint, or an ONNX file or engine exported with --tokens.")],
    images: Annotated[
        list[Path], typer.Argument(help="Image files, folders, globs, .txt lists, tars, Parquet files, data sets.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder for the pictures; made if missing.")],
    keep_ratio: Annotated[
        str | None,
        typer.Option(
            help="A list of keep ratios, a picture column for each: 0.2,0.5,0.8, or 0.7/0.5 by stage. For an "
            "elastic artefact or a checkpoint."
        ),
    ] = None,
    fast_path: options.FastPath = None,
    engine: options.EngineName = None,
    how: EngineOptions = options.ENGINE_OPTIONS,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Draw which patches of images each selection keeps.

    Draws also the class attention, or what else it chooses by.
    """
    with progress("drawing") as done:
        drawn = evodeploy.visualize(
            artefact,
            images,
            output,
            keep_ratios=None if keep_ratio is None else values.keeps(keep_ratio, "--keep-ratio"),
            fast_path=fast_path,
            engine=engine,
            options=how,
            force=force,
            progress=done,
        )
    answer(drawn, as_json)
