"""`evodeploy eval`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evodeploy.cli import options, values
from evodeploy.cli.console import Force, Json, note, progress, result, result_json, show
from evodeploy.cli.values import whole
from evodeploy.text import json_text

if TYPE_CHECKING:
    from rich.table import Table

    from evodeploy.evaluation.report import Evaluation

SHOWN_BROKEN = 5
SHOWN_CONFUSIONS = 5


def evaluate(
    context: typer.Context,
    artefacts: Annotated[list[Path], values.artefact("Checkpoints, ONNX files or engines, the first the yardstick.")],
    data: Annotated[Path, typer.Option(help="A folder with a folder of images for each class.")],
    labels: Annotated[
        Path | None, typer.Option(help="A CSV file with the columns path,label, in place of class folders.")
    ] = None,
    batch: Annotated[int, whole("--batch", 1, values.BATCH, "Images run at a time.")] = 32,
    limit: Annotated[int | None, whole("--limit", 1, values.IMAGES, "Use this many, evenly spread over all.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write JSON here; an interrupted run goes on from OUTPUT.part."),
    ] = None,
    engine: options.EngineName = None,
    device: options.Device = None,
    precision: options.Precision = None,
    cuda_graph: options.CudaGraph = False,
    threads: options.Threads = None,
    cache: options.Cache = None,
    tf32: options.Tf32 = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Measure top-1 and top-5 accuracy on labelled images, and whether artefacts differ significantly."""
    from evodeploy.evaluation.run import EvaluationRequest
    from evodeploy.evaluation.run import evaluate as run
    from evodeploy.files import claimed, replacing
    from evodeploy.kinds import REPORT

    journal = None
    if output is not None:
        context.with_resource(claimed([(output, REPORT)], force, *artefacts, *filter(None, [labels])))
        journal = output.with_name(f"{output.name}.part")
    how = options.engine_options(device, precision, cuda_graph, threads, cache, tf32)
    request = EvaluationRequest(tuple(artefacts), data, labels, limit, batch, engine, how, journal, fresh=force)
    report = run(request, lambda answers, total: progress(answers, total, "evaluating"))
    document = _document(report)
    if output is not None and journal is not None:
        with replacing(output) as draft:
            draft.write_text(json_text(document) + "\n", encoding="utf-8")
        journal.unlink()
        note(f"wrote {output}")
    if as_json:
        result_json(document)
        return
    _tell(report)


def _document(report: Evaluation) -> dict[str, Any]:
    return {"schema": 1} | dataclasses.asdict(report)


def _tell(report: Evaluation) -> None:
    result(f"{report.images} images, with 95 % intervals; img/s of the engine alone\n")
    show(_scores(report))
    if report.differences:
        result("")
        show(_differences(report))
    for score in report.scores:
        confusions = [f"{each.label} for {each.answer} ({each.count})" for each in score.confusions if each.count > 1]
        if confusions:
            result(f"\n{score.artefact} most often takes {', '.join(confusions[:SHOWN_CONFUSIONS])}")
    for name, reason in report.broken[:SHOWN_BROKEN]:
        note(f"left out: {name}: {reason}")
    if len(report.broken) > SHOWN_BROKEN:
        note(f"left out: {len(report.broken) - SHOWN_BROKEN} more")


def _scores(report: Evaluation) -> Table:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("artefact", "engine", "precision", "top-1", "top-5", "img/s"):
        table.add_column(heading, justify="left" if heading in ("artefact", "engine", "precision") else "right")
    for score in report.scores:
        top5 = "–" if score.top5 is None else str(score.top5)
        rate = f"{score.images_per_second:.1f}"
        table.add_row(score.artefact, score.engine, score.precision, str(score.top1), top5, rate)
    return table


def _differences(report: Evaluation) -> Table:
    """Each artefact beside the first."""
    from rich.table import Table

    yardstick = report.scores[0].artefact
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in (f"beside {yardstick}", "right alone", f"{yardstick} alone", "p (McNemar)", "differs significantly"):
        table.add_column(heading, justify="left" if heading.startswith("beside") else "right")
    for each in report.differences[: len(report.scores) - 1]:
        told = "yes" if each.significant else "no"
        table.add_row(each.second, str(each.second_only), str(each.first_only), f"{each.p_value:.2g}", told)
    return table
