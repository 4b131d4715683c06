"""`evodeploy predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import evodeploy
from evodeploy.cli import options, values
from evodeploy.cli.console import Force, Json, progress, result, result_json
from evodeploy.cli.reader import while_read
from evodeploy.cli.values import whole
from evodeploy.specs import EngineOptions
from evodeploy.text import brief

SHOWN = 10_000  # characters of a line, at most


@options.opens_engine
def predict(
    context: typer.Context,
    artefact: Annotated[Path, values.artefact("A checkpoint, an ONNX file, an engine or a deploy file.")],
    images: Annotated[
        list[Path], typer.Argument(help="Image files, folders, globs, .txt lists, tars, Parquet files, data sets.")
    ],
    top: Annotated[int | None, whole("--top", 1, values.CLASSES, "How many classes to name, 5 by default.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the predictions here: a .jsonl, .csv or .parquet file.")
    ] = None,
    batch: Annotated[int, whole("--batch", 1, values.BATCH, "Images run at a time.")] = 32,
    keep_ratio: options.KeepRatio = None,
    engine: options.EngineName = None,
    how: EngineOptions = options.ENGINE_OPTIONS,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Name the most probable classes of images.

    Images without a prediction are listed at the end; the command fails where no image has one.
    """
    ratios = values.ratios(keep_ratio)
    documents: list[dict[str, Any]] = []

    def shown(image: object, answer: evodeploy.Prediction | evodeploy.Failure) -> None:
        if as_json:
            documents.append({"image": str(image)} | answer.to_dict())
        elif isinstance(answer, evodeploy.Prediction):
            named = "  ".join(f"{label.name} {label.probability:.1%}" for label in answer.labels)
            result(brief(f"{image}  {named}", SHOWN))

    if output is None:
        context.with_resource(while_read())
    with (
        evodeploy.load(artefact, engine, **vars(how)) as predictor,
        progress("predicting", quiet=output is None) as done,
    ):
        written = predictor.write(
            images, output or shown, top=top, batch=batch, keep_ratio=ratios, force=force, progress=done
        )
    if as_json:
        result_json(documents if output is None else written.to_dict())
    elif output is not None:
        result(str(written))
