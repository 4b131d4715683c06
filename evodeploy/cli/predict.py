"""`evodeploy predict`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from evodeploy.cli.console import Json, Threads, result, result_json


def predict(
    artefact: Annotated[Path, typer.Argument(help="A checkpoint, an ONNX file or an engine.")],
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    top: Annotated[int, typer.Option(help="How many classes to name.", min=1)] = 5,
    engine: Annotated[str | None, typer.Option(help="What runs it; the first installed that can by default.")] = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Name the most probable classes of images."""
    from evodeploy.predictor import load

    with load(artefact, engine, threads=threads) as predictor:
        predictions = predictor.predict(list(images), top)
    if as_json:
        result_json(
            [
                {"image": str(path)} | dataclasses.asdict(prediction)
                for path, prediction in zip(images, predictions, strict=True)
            ]
        )
        return
    for path, prediction in zip(images, predictions, strict=True):
        result(f"{path}  " + "  ".join(f"{label.name} {label.probability:.1%}" for label in prediction.labels))
