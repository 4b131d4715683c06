"""`evodeploy build-engine`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evodeploy.cli.console import Force, Json, Stopwatch, note, one_precision, result, result_json, size_of
from evodeploy.errors import UsageError, needs
from evodeploy.files import check_output

if TYPE_CHECKING:
    from evodeploy.engines.tensorrt.builder import Progress


def build_engine(
    onnx: Annotated[Path | None, typer.Argument(help="Default: the newest ONNX file of this folder.")] = None,
    fp16: Annotated[bool, typer.Option("--fp16", help="Weights and activations in FP16.")] = False,
    bf16: Annotated[bool, typer.Option("--bf16", help="Weights and activations in BF16.")] = False,
    fp32: Annotated[bool, typer.Option("--fp32", help="All in FP32. Without any: as in the ONNX.")] = False,
    min_batch: Annotated[int | None, typer.Option(help="Smallest batch, 1 by default.")] = None,
    opt_batch: Annotated[int | None, typer.Option(help="Batch to be fastest at, 32 by default.")] = None,
    max_batch: Annotated[int | None, typer.Option(help="Largest batch, 128 by default.")] = None,
    runtime: Annotated[str | None, typer.Option(help="tensorrt or tensorrt-rtx; what is installed by default.")] = None,
    target: Annotated[
        str | None, typer.Option(help="GPU architectures, such as sm89,sm120. Default: the GPU here, else all.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: beside the ONNX.")] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Build a TensorRT engine with a dynamic batch; TensorRT for RTX builds without a GPU."""
    from evodeploy.artefacts import newest_onnx

    if onnx is None:
        onnx = newest_onnx(Path())
        if onnx is None:
            raise UsageError("there is no ONNX file in this folder: `evodeploy export ckpt.pth` makes one")
        note(f"taking {onnx}, the newest ONNX file of this folder")
    path = output or onnx.with_suffix(".engine")
    check_output(path, force, onnx)
    with needs("tensorrt-rtx"):
        from evodeploy.build import BuildRequest, build
    request = BuildRequest(
        onnx=onnx,
        output=path,
        precision=one_precision(fp16=fp16, bf16=bf16, fp32=fp32),
        batches=(min_batch, opt_batch, max_batch),
        runtime=runtime,
        targets=tuple(part.strip().lower() for part in target.split(",")) if target else (),
    )
    clock = Stopwatch()
    with _progress() as progress:
        record = build(request, tell=note, progress=progress)
    if as_json:
        import dataclasses

        result_json(dataclasses.asdict(record) | {"engine": str(path), "seconds": clock.seconds})
        return
    for_what = ", ".join(record.targets) or "the GPU here"
    profile = record.profile
    result(
        f"{path}  {size_of(path)}  {clock.seconds:.1f} s  {record.precision} for {for_what}, batch {profile.min} to "
        f"{profile.max} (best at {profile.opt})"
    )
    result(f"{path}.json  what was built, and checksums")
    result(f"next: evodeploy bench {onnx} {path}")
    result(f"      evodeploy inspect {path}")


@contextlib.contextmanager
def _progress() -> Iterator[Progress | None]:
    """A progress bar of TensorRT's phases on a terminal; elsewhere none."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns: Any = (TextColumn("{task.description:40.40}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("building", total=1.0)

        def report(phase: str, share: float) -> bool:
            bar.update(task, description=phase, completed=share)
            return True

        yield report
