"""`evodeploy build-engine` and `evodeploy refit`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

import evodeploy
from evodeploy.cli import options, values
from evodeploy.cli.console import Force, Json, answer, note, shows_progress
from evodeploy.cli.values import whole
from evodeploy.errors import UsageError

if TYPE_CHECKING:
    from evodeploy.builder.onnx_to_plan import Progress
    from evodeploy.builder.options import HardwareCompatibility


def build_engine(
    onnx: Annotated[
        Path | None,
        typer.Argument(help="Default: the newest export of this folder, if all its exports are of one checkpoint."),
    ] = None,
    fp16: Annotated[bool, typer.Option("--fp16", help="Weights and activations in FP16.")] = False,
    bf16: Annotated[bool, typer.Option("--bf16", help="Weights and activations in BF16.")] = False,
    fp32: Annotated[bool, typer.Option("--fp32", help="All in FP32. By default: as in the ONNX.")] = False,
    keep_fp32: options.KeepFp32 = None,
    min_batch: Annotated[int | None, whole("--min-batch", 1, values.BATCH, "Smallest batch, 1 by default.")] = None,
    opt_batch: Annotated[
        int | None, whole("--opt-batch", 1, values.BATCH, "Batch size to optimize for, 32 by default.")
    ] = None,
    max_batch: Annotated[int | None, whole("--max-batch", 1, values.BATCH, "Largest batch, 128 by default.")] = None,
    profile: Annotated[
        list[str] | None,
        typer.Option(help="MIN:OPT:MAX instead of these three; repeat it for more optimization profiles."),
    ] = None,
    runtime: Annotated[str | None, typer.Option(help="tensorrt or tensorrt-rtx; what is installed by default.")] = None,
    target: Annotated[
        str | None, typer.Option(help="GPU architectures, such as sm89,sm120. Default: the GPU here, else all.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Images to measure FP16's range on, in place of two random ones.")
    ] = None,
    optimization_level: Annotated[
        int | None, whole("--optimization-level", 0, 5, "Build longer for a faster engine.")
    ] = None,
    workspace: Annotated[
        str | None, typer.Option(help="Memory that a kernel may use besides its tensors, such as 4G.")
    ] = None,
    timing_cache: Annotated[
        Path | None, typer.Option(help="A file in which builds share their kernel timings.")
    ] = None,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="Let later versions of TensorRT run it, and the lean runtime.")
    ] = False,
    hardware_compatible: Annotated[
        str | None, typer.Option(help="ampere-plus or same-capability: let other GPUs run it.")
    ] = None,
    refittable: Annotated[
        bool, typer.Option("--refittable", help="Let `evodeploy refit` give it other weights.")
    ] = False,
    strip_plan: Annotated[
        bool, typer.Option("--strip-plan", help="Leave the weights out; `evodeploy refit` puts them in.")
    ] = False,
    tf32: Annotated[
        bool | None, typer.Option("--tf32/--no-tf32", help="Let FP32 products round to TF32; TensorRT does by default.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, say what would be built, stop.")
    ] = False,
    log: Annotated[Path | None, typer.Option(help="Write all of TensorRT's log here, also if the build fails.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: next to the ONNX.")] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Build a TensorRT engine with a dynamic batch.

    TensorRT for RTX builds without a GPU.
    """
    onnx = onnx or _newest()
    with _progress() as progress:
        built = evodeploy.build(
            onnx,
            output,
            precision=values.one_precision(fp16=fp16, bf16=bf16, fp32=fp32),
            keep_fp32=keep_fp32 or (),
            min_batch=min_batch,
            opt_batch=opt_batch,
            max_batch=max_batch,
            profiles=[values.profile(text) for text in profile or ()],
            runtime=runtime,
            targets=values.names("--target", target.lower()) if target else (),
            images=images,
            optimization_level=optimization_level,
            workspace=values.memory(workspace),
            timing_cache=timing_cache,
            version_compatible=version_compatible,
            hardware_compatible=cast("HardwareCompatibility | None", hardware_compatible),
            refittable=refittable,
            strip_plan=strip_plan,
            tf32=tf32,
            log=log,
            dry_run=dry_run,
            progress=progress,
            force=force,
        )
    following = [f"next: evodeploy bench {onnx} {built.path}", f"      evodeploy inspect {built.path}"]
    if strip_plan:
        following = [f"next: evodeploy refit {built.path} {onnx} -o FULL.engine"]
    answer(built, as_json, *([] if dry_run else following))


def refit(
    engine: Annotated[Path, typer.Argument(help="Built with --refittable or --strip-plan.")],
    onnx: Annotated[Path, typer.Argument(help="The same network with the weights to put in, in FP32.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The engine with these weights.")],
    images: Annotated[
        Path | None, typer.Option(help="Images to measure FP16's range on, in place of two random ones.")
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Give an engine the weights of another ONNX file.

    It is not built again. This needs the GPU that it was built for.
    """
    done = evodeploy.refit(engine, onnx, output, images=images, force=force)
    answer(done, as_json)


def _newest() -> Path:
    """Return the newest export in this folder."""
    from evodeploy.artefacts import newest_export

    onnx = newest_export(Path())
    if onnx is None:
        raise UsageError("there is no ONNX file in this folder: `evodeploy export ckpt.pth` makes one")
    note(f"using {onnx}, the newest ONNX file in this folder; name another to build from that")
    return onnx


@contextlib.contextmanager
def _progress() -> Iterator[Progress | None]:
    """Show a progress bar of TensorRT's phases on a terminal; yield None otherwise."""
    if not shows_progress():
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
