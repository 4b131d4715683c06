"""`evodeploy bench --print-trtexec`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import typer

from evodeploy.cli.bench_compare import refuse_others
from evodeploy.cli.console import result, result_json

_OWN = {"print_trtexec", "artefacts", "batch", "seconds", "tf32", "as_json"}


def print_trtexec(
    context: typer.Context,
    artefacts: Sequence[Path],
    batches: Sequence[int],
    seconds: float,
    tf32: bool | None,
    as_json: bool,
) -> None:
    """Print the trtexec command for each row that TensorRT runs."""
    from evodeploy.benchmark.trtexec import trtexec_lines

    refuse_others(context, _OWN, "--print-trtexec")
    found = trtexec_lines(artefacts, batches=batches, seconds=seconds, tf32=tf32)
    if as_json:
        result_json([dataclasses.asdict(line) for line in found])
        return
    for line in found:
        result(str(line))
