"""`evodeploy inspect` and `evodeploy doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import evodeploy
from evodeploy.cli import values
from evodeploy.cli.console import Json, answer, result, result_json
from evodeploy.errors import UsageError
from evodeploy.text import brief

SHOWN = 10_000  # characters of a fact, at most


def inspect(
    file: Annotated[Path, values.artefact("A checkpoint, an ONNX file, an engine or a deploy file.")],
    gpu: Annotated[
        str | None,
        typer.Option(
            metavar="CARDS",
            help="Show how fast an engine of TensorRT for RTX can be at most on these GPUs, such as l4,a100,h100. "
            "No GPU is needed.",
        ),
    ] = None,
    batch: Annotated[
        str | None, typer.Option(help="With --gpu: batch sizes; of 1,8,64,256 those that the engine takes by default.")
    ] = None,
    keep_ratio: Annotated[
        str | None,
        typer.Option(
            metavar="RATIO",
            help="With --gpu: share of tokens that an elastic engine keeps: 0.5, or one for each stage: 0.7,0.5. "
            "Default: its own.",
        ),
    ] = None,
    kernels: Annotated[bool, typer.Option("--kernels", help="With --gpu: the ten heaviest kernels too.")] = False,
    as_json: Json = False,
) -> None:
    """Show what a file is, or how fast an engine can be on a GPU.

    The file may be any of the pipeline: a checkpoint, an ONNX file, an engine or a deploy file.
    """
    if gpu is not None:
        sizes = values.batches(batch) if batch else None
        ratios = values.ratios(keep_ratio)
        bounds = evodeploy.roofline(file, values.names("--gpu", gpu), batches=sizes, keep_ratio=ratios, kernels=kernels)
        answer(bounds, as_json)
        return
    for name, given in (("--kernels", kernels), ("--batch", batch), ("--keep-ratio", keep_ratio)):
        if given not in (None, False):
            raise UsageError(f"{name} needs --gpu: add it, or leave {name} out")
    from evodeploy.inspection.describe import describe

    facts = describe(file)
    if as_json:
        result_json(facts)
        return
    for name, value in facts.items():
        result(f"{name.replace('_', ' '):16} {_said(value)}")
    if facts.get("intact") is False:
        if facts["kind"] == "engine":
            result("the engine differs from its record: it was altered or copied incompletely; build it again")
        else:
            result("the artefact is not the one that the deploy file was written for: copy both from one sweep")


def doctor(as_json: Json = False) -> None:
    """Show which runtimes and devices work on this machine.

    Says also how to fix those that do not.
    """
    from evodeploy.inspection.diagnosis import diagnose

    findings = diagnose()
    if as_json:
        result_json(findings)
        return
    for finding in findings:
        mark = "ok" if finding["works"] else "–"
        result(f"{mark:3} {finding['name']:16} {finding['detail']}")


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return brief(", ".join(f"{key}: {item}" for key, item in value.items()), SHOWN)
    if isinstance(value, list):
        return brief(", ".join(map(_item, value)), SHOWN) or "–"
    return "–" if value in (None, "") else brief(str(value), SHOWN)


def _item(value: Any) -> str:
    return " ".join(f"{key} {each}" for key, each in value.items()) if isinstance(value, dict) else str(value)
