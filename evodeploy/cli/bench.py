"""`evodeploy bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evodeploy.cli import bench_compare, bench_trtexec, values
from evodeploy.cli.console import Force, Json, result_json, saved, show
from evodeploy.cli.options import Device, FastPath, Threads
from evodeploy.cli.values import real, whole
from evodeploy.errors import UnavailableError


def bench(
    context: typer.Context,
    artefacts: Annotated[
        list[Path] | None,
        values.artefact("A checkpoint, ONNX files, engines, deploy files. Default: the newest export of this folder."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="A published model, with random weights if none are given.")] = None,
    engines: Annotated[
        str | None,
        typer.Option(
            help="Engines to compare; an engine that can replay CUDA graphs has rows with and without them. "
            "Default: torch, torch-compile (on a GPU its other modes too), and all that are installed."
        ),
    ] = None,
    precisions: Annotated[
        str | None,
        typer.Option(help="Precisions to compute FP32 files in. Default: fp32, and bf16 or fp16 if it is fast here."),
    ] = None,
    tf32: Annotated[
        bool | None,
        typer.Option(
            "--tf32/--no-tf32",
            help="On a GPU, let FP32 products round to TF32, in all engines or in none. Default: what deploy files "
            "state, or else --tf32.",
        ),
    ] = None,
    batch: Annotated[str, typer.Option(help="Batch sizes.")] = "1,8,32",
    keep: Annotated[
        str | None,
        typer.Option(
            help="The keep ratios of an elastic artefact, such as 1.0,0.7,0.5, or by stage 0.7/0.5: a row for each. "
            "Default: its own, and 1.0, which is the dense twin."
        ),
    ] = None,
    fast_path: FastPath = None,
    images: Annotated[
        Path | None, typer.Option(help="Images, as for `evodeploy eval`: run on them, and time files to labels too.")
    ] = None,
    seconds: Annotated[float, real("--seconds", 0, values.SECONDS, "Average time for a row, at most.")] = 5.0,
    min_seconds: Annotated[
        float | None,
        real("--min-seconds", 0, values.SECONDS, "Average time for a row, at least; 1 or --seconds by default."),
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
        Path | None, typer.Option(help="The folder for built engines. Default: evodeploy/engines in your cache folder.")
    ] = None,
    device: Device = None,
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
        bool, typer.Option("--print-trtexec", help="Print the trtexec command for each TensorRT row, and run nothing.")
    ] = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Measure engines, and the model against its dense twin.

    All take turns in one process, next to PyTorch. Ends with 1 where a row computes something else than PyTorch, or
    where --compare finds one slower; with 3 where nothing could be measured.
    """
    if compare:
        bench_compare.compare(context, artefacts or [], min_change, as_json)
        return
    bench_compare.refuse_without_compare(context)
    from evodeploy.benchmark.pipeline import bench as measured
    from evodeploy.files import claimed
    from evodeploy.kinds import MEASUREMENTS, PAGE, REPORT

    batches = values.batches(batch)
    if print_trtexec:
        bench_trtexec.print_trtexec(context, artefacts or [], batches, seconds, tf32, as_json)
        return
    outputs = [(path, kind) for path, kind in ((output, REPORT), (csv, MEASUREMENTS), (html, PAGE)) if path is not None]
    context.with_resource(claimed(outputs, force, *(artefacts or [])))
    report = measured(
        artefacts,
        model=model,
        engines=values.names("--engines", engines) if engines else None,
        precisions=values.names("--precisions", precisions) if precisions else None,
        batches=batches,
        images=images,
        seconds=seconds,
        min_seconds=min_seconds,
        rounds=rounds,
        precision_target=precision_target,
        build=build,
        engine_cache=engine_cache,
        tf32=tf32,
        device=device,
        threads=threads,
        keeps=values.keeps(keep) if keep is not None else None,
        fast_path=fast_path,
    )
    saved(report, outputs, force, lambda: result_json(report.to_dict()) if as_json else show(report))
    if not report.timed:
        raise UnavailableError("nothing could be measured: each row above gives its reason")
    if report.wrong:
        raise typer.Exit(1)
