"""`evodeploy verify`."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evodeploy.cli import options, values
from evodeploy.cli.console import Json, result, result_json, show
from evodeploy.cli.values import real, whole
from evodeploy.errors import VerificationError

if TYPE_CHECKING:
    from rich.table import Table

    from evodeploy.compare.agreement import Agreement


def verify(
    reference: Annotated[Path, values.artefact("What is right: a checkpoint, an ONNX file or an engine.")],
    candidate: Annotated[Path, values.artefact("What is judged.")],
    images: Annotated[Path | None, typer.Option(help="A folder of images; without it, random noise.")] = None,
    random: Annotated[int, whole("--random", 1, values.RANDOM, "How many random images.")] = 32,
    seed: Annotated[int, whole("--seed", 0, values.SEED, "Seed of the random images.")] = 0,
    rtol: Annotated[
        float | None,
        real("--rtol", 0, math.inf, "Largest error of a logit, relative to the largest; by precision otherwise."),
    ] = None,
    atol: Annotated[float, real("--atol", 0, math.inf, "Error of a logit that passes in any case, as it is.")] = 0.0,
    score_tol: Annotated[
        float | None,
        real("--score-tol", 0, math.inf, "How near a tie a differing token must be; by precision otherwise."),
    ] = None,
    engine: options.EngineName = None,
    device: options.Device = None,
    precision: options.Precision = None,
    cuda_graph: options.CudaGraph = False,
    threads: options.Threads = None,
    cache: options.Cache = None,
    tf32: options.Tf32 = None,
    as_json: Json = False,
) -> None:
    """Compare two artefacts of a model: logits, top-1, and the tokens that each selection keeps.

    The options of the runtime are the candidate's; the reference takes --threads alone.
    """
    from evodeploy.compare.artefacts import compare_artefacts

    verdict = compare_artefacts(
        reference,
        candidate,
        folder=images,
        count=random,
        seed=seed,
        rtol=rtol,
        atol=atol,
        score_tolerance=score_tol,
        engine=engine,
        options=options.engine_options(device, precision, cuda_graph, threads, cache, tf32),
    )
    if as_json:
        result_json({"passed": verdict.passed} | dataclasses.asdict(verdict))
    else:
        result(f"{candidate} against {reference}, {verdict.logits.images} images\n")
        show(_logits(verdict))
        result("")
        if verdict.selections:
            show(_selections(verdict))
        else:
            result("selections are not compared: export the ONNX with --tokens to see them")
        result(f"\ntolerance of {verdict.tolerance.reason}")
        result("PASSED" if verdict.passed else "FAILED")
    if not verdict.passed:
        raise VerificationError(f"{candidate} does not agree with {reference}")


def _logits(verdict: Agreement) -> Table:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("logits", "", "limit"):
        table.add_column(heading, justify="left" if heading == "logits" else "right")
    logits, limit = verdict.logits, f"{verdict.logits.limit:.0e}"
    table.add_row("largest error", f"{logits.max_error:.1e}", "" if verdict.selections else limit)
    if verdict.selections:
        table.add_row(
            f"… in the {logits.unmoved} images with the same tokens", f"{logits.max_error_unmoved:.1e}", limit
        )
    table.add_row("mean error", f"{logits.mean_error:.1e}", "")
    table.add_row("cosine, worst and median", f"{logits.min_cosine:.6f}  {logits.median_cosine:.6f}", "")
    if logits.top1 is not None:
        table.add_row("same top-1", f"{logits.top1:.2%}", "")
    return table


def _selections(verdict: Agreement) -> Table:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    headings = (
        "selection",
        "identical sets",
        "tokens agreeing",
        "Jaccard",
        "near-ties",
        "consequences",
        "errors",
        "gap",
    )
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "selection" else "right")
    for each in verdict.selections:
        gap = "–" if each.largest_gap is None else f"{each.largest_gap:.1e}"
        table.add_row(
            each.name,
            f"{each.identical} of {verdict.logits.images}",
            f"{each.agreement:.2%}",
            f"{each.jaccard:.4f}",
            str(each.near_ties),
            str(each.consequences),
            str(each.errors),
            gap,
        )
    return table
