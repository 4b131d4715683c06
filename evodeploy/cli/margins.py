"""`evodeploy margins`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import evodeploy
from evodeploy.cli import options, values
from evodeploy.cli.console import Json, result, result_json


def margins(
    artefact: Annotated[Path, values.artefact("A checkpoint, or an ONNX file or engine exported with --tokens.")],
    images: Annotated[Path, typer.Option(help=f"Images such as the artefact will see: {options.DATA}.")],
    engine: options.EngineName = None,
    device: options.Device = None,
    precision: options.Precision = None,
    cuda_graph: options.CudaGraph = False,
    threads: options.Threads = None,
    cache: options.Cache = None,
    tf32: options.Tf32 = None,
    fixed_keep: options.FixedKeep = None,
    as_json: Json = False,
) -> None:
    """Measure how clear each selection is, and which keep ratio holds most of the class attention."""
    found = evodeploy.margins(
        artefact,
        images,
        engine=engine,
        options=options.engine_options(device, precision, cuda_graph, threads, cache, tf32, fixed_keep),
    )
    if as_json:
        result_json(found.to_dict())
    else:
        result(f"{artefact}, {found}")
