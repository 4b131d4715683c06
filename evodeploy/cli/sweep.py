"""`evodeploy sweep`."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evodeploy.cli import values
from evodeploy.cli.console import Force, Json, note, result, result_json, show
from evodeploy.cli.options import Threads
from evodeploy.cli.values import real, whole
from evodeploy.errors import UsageError, needs
from evodeploy.text import json_text

if TYPE_CHECKING:
    from rich.table import Table

    from evodeploy.sweeper.front import Point


def sweep(
    context: typer.Context,
    checkpoint: Annotated[Path, values.artefact("A .pth, .pt or .safetensors file, or hf://OWNER/NAME@REVISION.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder for all of it; an interrupted run goes on.")
    ],
    data: Annotated[
        Path | None, typer.Option(help="Labelled images, as for `evodeploy eval`. Without: throughput alone.")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="A CSV file with the columns path,label.")] = None,
    limit: Annotated[int | None, whole("--limit", 1, values.IMAGES, "Use this many images, evenly spread.")] = None,
    keep: Annotated[
        str | None,
        typer.Option(
            help="Keep ratios to try, by stage with a stroke: 1.0,0.7,0.7/0.5. Default: 1.0 to 0.3, or 1.0 alone for "
            "a network that was not trained with selection."
        ),
    ] = None,
    by_stage: Annotated[
        bool,
        typer.Option(
            "--by-stage", help="Search the ratios of --keep stage by stage, on --data, down from the largest."
        ),
    ] = False,
    precision: Annotated[str, typer.Option(help="Some of fp32, bf16, fp16, int8.")] = "fp32,bf16",
    engines: Annotated[str | None, typer.Option(help="Default: those installed that run ONNX files on a CPU.")] = None,
    images: Annotated[Path | None, typer.Option(help="Images to calibrate INT8 on; those of --data without.")] = None,
    batch: Annotated[int, whole("--batch", 1, values.BATCH, "Images run at a time.")] = 8,
    seconds: Annotated[
        float, real("--seconds", 0.1, values.SECONDS, "Measured time for each candidate, at most.")
    ] = 6.0,
    budget: Annotated[float | None, real("--budget", 0, 10**6, "Minutes after which nothing new is begun.")] = None,
    target_latency: Annotated[
        float | None,
        real("--target-latency", 0, 10**6, "Milliseconds that a batch may take: choose the most accurate."),
    ] = None,
    min_accuracy: Annotated[
        float | None, real("--min-accuracy", 0, 100, "Top-1 in per cent to be reached: choose the fastest.")
    ] = None,
    threads: Threads = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Try keep ratios, precisions and engines, and find what is worth deploying: accuracy against throughput."""
    from evodeploy.machine.cores import usable_cores
    from evodeploy.sweeper.begin import begun
    from evodeploy.sweeper.front import chosen, front
    from evodeploy.sweeper.picture import as_svg
    from evodeploy.sweeper.request import SweepRequest
    from evodeploy.sweeper.run import document
    from evodeploy.sweeper.run import sweep as run
    from evodeploy.sweeper.space import DENSE, KEEPS, candidates, usual_engines

    if min_accuracy is not None and data is None:
        raise UsageError("--min-accuracy needs labelled images: add --data DIR")
    names = values.names("--engines", engines) if engines else usual_engines()
    precisions = values.names("--precision", precision)
    asked = values.keeps(keep) if keep else None
    with needs("export"):
        from evodeploy.models.checkpoint import load_checkpoint
        from evodeploy.models.untrained import warning
    model = load_checkpoint(checkpoint)
    keeps = asked or values.keeps(KEEPS if model.trained_to_select or by_stage else DENSE)
    if not model.trained_to_select:
        selecting = any(ratio < 1 for each in keeps for ratio in each)
        note(warning(model) if selecting else f"{model.config.name} was not trained with selection: trying 1.0 alone")
    searched = tuple(each[0] for each in keeps) if by_stage else ()
    if by_stage and any(len(each) > 1 for each in keeps):
        raise UsageError(f"--by-stage finds the stages' ratios itself, --keep is {keep}: give ratios without strokes")
    tried, refused = candidates([(max(searched),)] if by_stage else keeps, precisions, names)
    if not tried:
        raise UsageError(f"nothing can be tried: {'; '.join(refused.values())}")
    for what, reason in refused.items():
        note(f"left out: {what}: {reason}")
    request = SweepRequest(
        checkpoint, output, tuple(tried), data, labels, limit, images, batch, threads or usable_cores(), seconds,
        None if budget is None else 60 * budget, searched, None if min_accuracy is None else min_accuracy / 100,
    )  # fmt: skip
    state = context.with_resource(begun(request, force))
    points, left_out = run(request, state)
    best = front(points)
    facts = document(points, best, refused | left_out, batch)
    pick = None
    if target_latency is not None or min_accuracy is not None:
        latency = None if target_latency is None else target_latency / 1000
        pick = chosen(points, latency, None if min_accuracy is None else min_accuracy / 100)
        with state.replacing("chosen.onnx") as draft:
            shutil.copy(output / pick.file, draft)
        facts["chosen"] = str(pick.candidate)
    with state.replacing("sweep.json") as draft:
        draft.write_text(json_text(facts) + "\n", encoding="utf-8")
    if data is not None:
        with state.replacing("front.svg") as draft:
            draft.write_text(as_svg(points, best, f"{checkpoint.stem}: accuracy and throughput"), encoding="utf-8")
    if as_json:
        result_json(facts)
        return
    reference = points[0].candidate
    result(f"batch {batch}, {request.threads} threads; speed beside {reference}, run in turn; ● worth having\n")
    show(_table(points, best))
    written = ["sweep.json", *(["front.svg"] if data is not None else [])]
    result("\n" + ", ".join(str(output / name) for name in written))
    if pick is not None:
        told = ', precision="bf16"' if pick.candidate.precision == "bf16" else ""
        result(f"{output / 'chosen.onnx'}  {pick.candidate}")
        result(f'next: evodeploy.load("chosen.onnx", "{pick.candidate.engine}"{told})')


def _table(points: Sequence[Point], best: Sequence[Point]) -> Table:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("", "keep", "engine", "precision", "top-1", "speed", "95 %", "img/s", "ms"):
        table.add_column(heading, justify="left" if heading in ("", "keep", "engine", "precision") else "right")
    for point in sorted(points, key=lambda each: -each.speed.value):
        each, speed = point.candidate, point.speed
        table.add_row(
            "●" if point in best else "",
            each.kept,
            each.engine,
            each.precision,
            "–" if point.accuracy is None else str(point.accuracy),
            f"{speed.value:.2f} ×",
            f"{speed.low:.2f}–{speed.high:.2f}",
            f"{point.rate:.1f}",
            f"{1000 * point.seconds:.1f}",
        )
    return table
