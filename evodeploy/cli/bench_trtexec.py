"""`evodeploy bench --print-trtexec`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from evodeploy.cli.bench_compare import given
from evodeploy.cli.console import note, result, result_json
from evodeploy.errors import UsageError

if TYPE_CHECKING:
    from evodeploy.benchmark.measure.interleaved import Budget
    from evodeploy.benchmark.trtexec import Line


_OWN = {"print_trtexec", "artefacts", "batch", "seconds", "tf32", "as_json"}


def print_trtexec(
    context: typer.Context, artefacts: Sequence[Path], batches: Sequence[int], budget: Budget, tf32: bool, as_json: bool
) -> None:
    """Print the command for each row of the engines in `artefacts`, or of the ONNX files where there is no engine."""
    others = sorted(given(context) - _OWN)
    if others:
        raise UsageError(f"--{others[0].replace('_', '-')} has no meaning with --print-trtexec: leave it out")
    from evodeploy.artefacts import family_of
    from evodeploy.benchmark.trtexec import RTX_TOOL, lines_of_engine, lines_of_onnx
    from evodeploy.kinds import kind_of

    onnx = [path for path in artefacts if kind_of(path) == "onnx"]
    engines = [path for path in artefacts if kind_of(path) == "engine"]
    if not engines:
        engines = [built for path in onnx for built in family_of(path).engines]
    found: list[Line] = [line for path in engines for line in lines_of_engine(path, batches, budget)]
    if not engines:
        found = [line for path in onnx for line in lines_of_onnx(path, batches, budget, tf32=tf32)]
    if not found:
        raise UsageError("--print-trtexec prints lines for engines or ONNX files, got none: name some")
    if as_json:
        result_json([dataclasses.asdict(line) for line in found])
        return
    if any(line.command.startswith(RTX_TOOL) for line in found):
        note(
            f"TensorRT for RTX has a tool of its own, {RTX_TOOL}. NVIDIA publishes no list of its options: those that "
            "its documentation does not name are taken to be trtexec's"
        )
    for line in found:
        result(str(line))
