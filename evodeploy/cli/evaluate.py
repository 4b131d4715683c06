"""`evodeploy eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import evodeploy
from evodeploy.cli import options, values
from evodeploy.cli.console import Force, Json, answer, progress
from evodeploy.cli.values import whole
from evodeploy.specs import EngineOptions


@options.opens_engine
def evaluate(
    artefacts: Annotated[
        list[Path], values.artefact("Checkpoints, ONNX files, engines or deploy files; the first is the reference.")
    ],
    data: Annotated[Path, typer.Option(help=f"Labelled images: {options.DATA}.")],
    labels: options.Labels = None,
    class_map: options.ClassMap = None,
    real_labels: Annotated[
        Path | None, typer.Option(help="ReaL labels of ImageNet's validation images, real.json.", metavar="FILE")
    ] = None,
    batch: Annotated[int, whole("--batch", 1, values.BATCH, "Images run at a time.")] = 32,
    limit: options.Limit = None,
    keep_ratio: options.KeepRatio = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Write the JSON document here too; an interrupted run resumes from OUTPUT.part."
        ),
    ] = None,
    engine: options.EngineName = None,
    how: EngineOptions = options.ENGINE_OPTIONS,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Measure top-1 and top-5 accuracy on labelled images.

    Several artefacts are compared: whether they differ significantly.
    """
    with progress("evaluating") as done:
        report = evodeploy.evaluate(
            artefacts,
            data,
            labels=labels,
            class_map=class_map,
            real_labels=real_labels,
            limit=limit,
            batch=batch,
            engine=engine,
            options=how,
            keep_ratio=values.ratios(keep_ratio),
            output=output,
            force=force,
            progress=done,
        )
    answer(report, as_json)
