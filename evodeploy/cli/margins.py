"""`evodeploy margins`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import evodeploy
from evodeploy.cli import options, values
from evodeploy.cli.console import Json, result, result_json
from evodeploy.specs import EngineOptions


@options.opens_engine
def margins(
    artefact: Annotated[Path, values.artefact("A checkpoint, or an ONNX file or engine exported with --tokens.")],
    images: Annotated[Path, typer.Option(help=f"Images such as the artefact will see: {options.DATA}.")],
    engine: options.EngineName = None,
    how: EngineOptions = options.ENGINE_OPTIONS,
    as_json: Json = False,
) -> None:
    """Measure how clear each selection of tokens is.

    Shows also which keep ratio holds most of the class attention.
    """
    found = evodeploy.margins(artefact, images, engine=engine, options=how)
    if as_json:
        result_json(found.to_dict())
    else:
        result(f"{artefact}, {found}")
