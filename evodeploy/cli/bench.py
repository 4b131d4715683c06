"""`evodeploy bench`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evodeploy.cli import bench_compare, bench_trtexec, values
from evodeploy.cli.console import Force, Json, columns, note, result, result_json, show, working
from evodeploy.cli.options import Threads
from evodeploy.cli.values import real, whole
from evodeploy.errors import RuntimeFailedError, UnavailableError, UsageError

if TYPE_CHECKING:
    from evodeploy.benchmark.report.report import Peaks, Report
    from evodeploy.benchmark.row import Row

SAMPLE = 64  # pictures of a folder that rows are run on and judged by


def bench(
    context: typer.Context,
    artefacts: Annotated[
        list[Path] | None,
        values.artefact("A checkpoint, ONNX files, engines. Default: the newest export of this folder."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A published model, with random weights where none are given.")
    ] = None,
    engines: Annotated[
        str | None,
        typer.Option(
            help="What to compare. Default: torch, torch-compile, on a GPU its other modes too, and what is installed."
        ),
    ] = None,
    precisions: Annotated[
        str | None,
        typer.Option(help="What FP32 files are computed in. Default: fp32, and bf16 or fp16 where it is fast here."),
    ] = None,
    tf32: Annotated[
        bool,
        typer.Option(
            "--tf32/--no-tf32",
            help="On a GPU, let FP32 products round to TF32 in all engines: TensorRT and ONNX Runtime do by default.",
        ),
    ] = True,
    batch: Annotated[str, typer.Option(help="Batch sizes.")] = "1,8,32",
    images: Annotated[
        Path | None, typer.Option(help="A folder of pictures: run on them, and time files to labels too.")
    ] = None,
    seconds: Annotated[float, real("--seconds", 0, values.SECONDS, "Measured time for each row, at most.")] = 5.0,
    min_seconds: Annotated[
        float | None,
        real("--min-seconds", 0, values.SECONDS, "Measured time for each row, at least; 1 or --seconds by default."),
    ] = None,
    rounds: Annotated[int, whole("--rounds", 6, 10**6, "Rounds, at least.")] = 10,
    precision_target: Annotated[
        float,
        real("--precision-target", 0, 1, "Stop once the 95 % interval of every median is narrower, relative to it."),
    ] = 0.02,
    build: Annotated[
        bool, typer.Option("--build/--no-build", help="Build the TensorRT engines that are missing, also the twin's.")
    ] = True,
    engine_cache: Annotated[
        Path | None, typer.Option(help="Where what is built is kept. Default: evodeploy/engines in your cache folder.")
    ] = None,
    threads: Threads = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the JSON document here too.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the rows here, without samples.")] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a report with plots, one page that needs no network.")
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Compare two JSON documents, the old and the new, instead.")
    ] = False,
    min_change: bench_compare.MinChange = bench_compare.MIN_CHANGE,
    print_trtexec: Annotated[
        bool, typer.Option("--print-trtexec", help="Print the line of trtexec for each TensorRT row, and run nothing.")
    ] = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Measure engines against PyTorch, and the model against its dense twin, in turn in one process.

    Ends with 1 where a row computes something else than PyTorch, or where --compare finds one slower; with 3 where
    nothing could be measured.
    """
    if compare:
        bench_compare.compare(context, artefacts or [], min_change, as_json)
        return
    bench_compare.refuse_without_compare(context)
    from evodeploy.benchmark.candidates import candidates_of, usual_engines, usual_precisions
    from evodeploy.benchmark.measure.interleaved import Budget
    from evodeploy.benchmark.plans import Builds
    from evodeploy.benchmark.report.report import Report
    from evodeploy.benchmark.run import bench as run_bench
    from evodeploy.benchmark.stages import end_to_end
    from evodeploy.benchmark.subject import subject_of
    from evodeploy.files import claimed
    from evodeploy.images import image_paths
    from evodeploy.kinds import MEASUREMENTS, PAGE, REPORT
    from evodeploy.machine.cores import usable_cores
    from evodeploy.machine.environment import environment
    from evodeploy.preprocess import pictures

    batches = values.batches(batch)
    asked = values.names("--engines", engines) if engines else None
    precise = values.names("--precisions", precisions) if precisions else None
    budget = Budget(seconds, rounds, precision_target, min(1.0, seconds) if min_seconds is None else min_seconds)
    kinds_of_output = ((output, REPORT), (csv, MEASUREMENTS), (html, PAGE))
    outputs = [(path, kind) for path, kind in kinds_of_output if path is not None]
    artefacts = artefacts or _newest(model)
    if print_trtexec:
        bench_trtexec.print_trtexec(context, artefacts, batches, budget, tf32, as_json)
        return
    paths = image_paths(images) if images else []
    context.with_resource(claimed(outputs, force, *artefacts, *paths))
    threads = threads or usable_cores()
    machine = environment(threads)
    subject = subject_of(artefacts, model)
    if paths and subject.info is None:
        raise UsageError(f"{subject.name} does not say how images are prepared: leave out --images")
    for line in subject.notes:
        note(line)
    names = asked or usual_engines(subject)
    kinds = precise or usual_precisions()
    sample = pictures(paths[: max(SAMPLE, *batches)], subject.info) if paths and subject.info else None
    builds = Builds(batches, engine_cache, tf32) if build else None
    with ExitStack() as stack:
        with working("preparing the model and its dense twin"):
            candidates = stack.enter_context(candidates_of(subject, names, kinds, threads, builds, tf32))
        rows = run_bench(candidates, batches, budget, sample)
        timed = [row for row in rows if row.timing and row.precision]
        with working("measuring the machine's matrix products"):
            best = _peaks(timed, threads)
        ended = {row.label: row.candidate for row in timed if row.candidate.role == "evo" and row.in_flight == 1}
        stages = end_to_end(ended.items(), paths, max(batches), seconds) if paths else []
    report = Report(subject, machine, budget, tuple(rows), best, tuple(stages))
    _write(report, output, csv, html)
    _tell(report, as_json)
    if not report.timed:
        raise UnavailableError("nothing could be measured: each row above gives its reason")
    if report.wrong:
        raise typer.Exit(1)


def _peaks(timed: list[Row], threads: int) -> Peaks:
    """The machine's limits; none where that fails, for the rows have been measured by then."""
    from evodeploy.benchmark.measure.peak import peaks

    try:
        return peaks([(row.device, row.arithmetic) for row in timed if row.arithmetic], threads)
    except RuntimeFailedError as error:
        note(f"{error}: no row says its share of them")
        return {}


def _write(report: Report, output: Path | None, csv: Path | None, html: Path | None) -> None:
    import json

    from evodeploy.benchmark.report.document import as_csv, as_json
    from evodeploy.benchmark.report.page import as_html
    from evodeploy.files import replacing

    texts = (
        (output, lambda report: json.dumps(as_json(report), allow_nan=False, indent=1) + "\n"),
        (csv, as_csv),
        (html, as_html),
    )
    for path, text in texts:
        if path is not None:
            with replacing(path) as draft:
                draft.write_text(text(report), encoding="utf-8")
            note(f"wrote {path}")


def _tell(report: Report, as_json: bool) -> None:
    from evodeploy.benchmark.report.document import as_json as document
    from evodeploy.benchmark.report.report import cautions, headlines
    from evodeploy.benchmark.report.table import as_table, stages_table

    if as_json:
        result_json(document(report))
        return
    machine = report.environment
    result(f"{report.subject.name} on {machine.processor}, {machine.threads} threads, runs interleaved")
    result("evo: the model; dense: its twin that keeps every token; eager: PyTorch eager in FP32 on evo;")
    result("torch: the fastest PyTorch row of the same model, in any precision\n")
    show(as_table(report, columns()))
    if report.end_to_end:
        result("\nfrom files to labels, milliseconds of one image")
        show(stages_table(report.end_to_end))
    result("")
    for line in headlines(report):
        result(line)
    for line in cautions(report):
        result(f"– {line}")


def _newest(model: str | None) -> list[Path]:
    """The files of this folder's newest export, or none where a model is named or nothing is there."""
    from evodeploy.artefacts import family_of, newest_export

    onnx = None if model else newest_export(Path())
    if onnx is None:
        return []
    paths = list(family_of(onnx).paths)
    note(f"taking {', '.join(map(str, paths))}, the newest export of this folder")
    return paths
