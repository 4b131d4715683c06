"""`evodeploy debug`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

import typer

import evodeploy
from evodeploy.cli import options, values
from evodeploy.cli.console import Force, Json, answer, saved
from evodeploy.cli.values import real, whole
from evodeploy.errors import VerificationError
from evodeploy.files import claimed
from evodeploy.kinds import DRAWING, REPORT


def debug(
    context: typer.Context,
    reference: Annotated[Path, values.artefact("The reference: a checkpoint, or any ONNX file.")],
    other: Annotated[
        Path | None, typer.Argument(help="The ONNX file to compare with it; leave it out with --precision.")
    ] = None,
    precision: Annotated[
        Literal["fp16", "bf16"] | None,
        typer.Option(help="Compare the reference with its conversion to this, in memory."),
    ] = None,
    keep_fp32: options.KeepFp32 = None,
    images: options.Images = None,
    random: Annotated[int, whole("--random", 1, values.RANDOM, "Number of random images.")] = 8,
    seed: Annotated[int, whole("--seed", 0, values.SEED, "Seed of the random images.")] = 0,
    tolerance: Annotated[
        float | None,
        real(
            "--tolerance",
            0,
            math.inf,
            "Largest allowed error of an output, relative to its largest value. Default: by precision.",
        ),
    ] = None,
    keep_ratio: options.KeepRatio = None,
    repair: Annotated[
        bool, typer.Option("--repair/--no-repair", help="Look for the fewest nodes to keep in FP32 for the tolerance.")
    ] = True,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the JSON document here too.")] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Draw the error along the network here.", metavar="FILE.svg")
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Compare two networks node by node.

    Shows where the error begins, how it grows, and which nodes to keep in FP32.
    """
    outputs = [(path, kind) for path, kind in ((output, REPORT), (picture, DRAWING)) if path is not None]
    context.with_resource(claimed(outputs, force, reference, *([other] if other else [])))
    report = evodeploy.debug(
        reference,
        other,
        precision=precision,
        keep_fp32=keep_fp32 or (),
        images=images,
        count=random,
        seed=seed,
        tolerance=tolerance,
        keep_ratio=values.ratios(keep_ratio),
        repair=repair,
    )
    saved(report, outputs, force, lambda: answer(report, as_json))
    if not report.passed:
        raise VerificationError(f"the error of {report.other} is beyond the tolerance")
