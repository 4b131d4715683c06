"""`evodeploy bench`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from evodeploy.cli.console import Force, Json, Threads, note, result, result_json, show, working
from evodeploy.errors import UsageError


def bench(
    artefacts: Annotated[
        list[Path] | None,
        typer.Argument(help="A checkpoint, ONNX files, engines. Default: the newest export of this folder."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A published model, with random weights where none are given.")
    ] = None,
    engines: Annotated[
        str, typer.Option(help="What to compare.")
    ] = "torch,torch-compile,onnxruntime,openvino,tensorrt",
    batch: Annotated[str, typer.Option(help="Batch sizes.")] = "1,8,32",
    seconds: Annotated[float, typer.Option(help="Measured time for each row, at least.", min=0)] = 3.0,
    rounds: Annotated[int, typer.Option(help="Rounds, at least.", min=2)] = 5,
    threads: Threads = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the JSON document here too.")] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Measure engines against PyTorch, and the model against its dense twin, in turn in one process."""
    from evodeploy.bench.candidates import candidates_of, subject_of
    from evodeploy.bench.environment import environment, usable_cores
    from evodeploy.bench.measure import Budget
    from evodeploy.bench.report import as_json as report_json
    from evodeploy.bench.report import as_table, reasons
    from evodeploy.bench.run import bench as run_bench
    from evodeploy.files import check_output, replacing

    batches = _batches(batch)
    if output is not None:
        check_output(output, force)
    threads = threads or usable_cores()
    subject = subject_of(artefacts or _newest(model), model)
    for line in subject.notes:
        note(line)
    with ExitStack() as stack:
        with working("preparing the model and its dense twin"):
            candidates = stack.enter_context(candidates_of(subject, engines.split(","), threads))
        rows = run_bench(candidates, batches, Budget(seconds, rounds), note)
    machine = environment(threads)
    document = report_json(subject, rows, machine)
    if output is not None:
        import json

        with replacing(output) as draft:
            draft.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if as_json:
        result_json(document)
        return
    result(f"{subject.name} on {machine.processor}, {threads} threads, runs interleaved")
    result("evo: the model; dense: its twin that keeps every token; × torch: throughput over PyTorch eager on evo\n")
    show(as_table(rows))
    for line in reasons(rows):
        result(f"– {line}")


def _newest(model: str | None) -> list[Path]:
    """The files of this folder's newest export, or none where a model is named or nothing is there."""
    from evodeploy.artefacts import family_of, newest_onnx

    onnx = None if model else newest_onnx(Path())
    if onnx is None:
        return []
    paths = list(family_of(onnx).paths)
    note(f"taking {', '.join(map(str, paths))}, the newest export of this folder")
    return paths


def _batches(text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.strip().isdigit() and int(part) for part in parts):
        raise UsageError(f"--batch is '{text}', expected batch sizes such as 1,8,32")
    return [int(part) for part in parts]
