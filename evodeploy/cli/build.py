"""`evodeploy build-engine` and `evodeploy refit`."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from evodeploy.cli import values
from evodeploy.cli.console import Force, Json, Stopwatch, note, result, result_json, size_of
from evodeploy.cli.values import whole
from evodeploy.errors import UsageError, needs
from evodeploy.files import check_distinct, check_input, check_output, claimed
from evodeploy.kinds import ENGINE, LOG, RECORD, TIMINGS, Kind

if TYPE_CHECKING:
    from evodeploy.builder.onnx_to_plan import Progress
    from evodeploy.builder.options import HardwareCompatibility
    from evodeploy.builder.pipeline import Batches, BuildRequest, Prepared


def build_engine(
    context: typer.Context,
    onnx: Annotated[
        Path | None,
        typer.Argument(help="Default: the newest export of this folder, if all its exports are of one checkpoint."),
    ] = None,
    fp16: Annotated[bool, typer.Option("--fp16", help="Weights and activations in FP16.")] = False,
    bf16: Annotated[bool, typer.Option("--bf16", help="Weights and activations in BF16.")] = False,
    fp32: Annotated[bool, typer.Option("--fp32", help="All in FP32. Without any: as in the ONNX.")] = False,
    min_batch: Annotated[int | None, whole("--min-batch", 1, values.BATCH, "Smallest batch, 1 by default.")] = None,
    opt_batch: Annotated[
        int | None, whole("--opt-batch", 1, values.BATCH, "Batch to be fastest at, 32 by default.")
    ] = None,
    max_batch: Annotated[int | None, whole("--max-batch", 1, values.BATCH, "Largest batch, 128 by default.")] = None,
    profile: Annotated[
        list[str] | None, typer.Option(help="MIN:OPT:MAX, again for each optimization profile, in place of these.")
    ] = None,
    runtime: Annotated[str | None, typer.Option(help="tensorrt or tensorrt-rtx; what is installed by default.")] = None,
    target: Annotated[
        str | None, typer.Option(help="GPU architectures, such as sm89,sm120. Default: the GPU here, else all.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="A folder of images to measure the activations' range on, before FP16.")
    ] = None,
    optimization_level: Annotated[
        int | None, whole("--optimization-level", 0, 5, "Build longer for a faster engine.")
    ] = None,
    workspace: Annotated[str | None, typer.Option(help="Memory that a kernel may use beside its tensors: 4G.")] = None,
    timing_cache: Annotated[
        Path | None, typer.Option(help="A file in which builds share what they measured of kernels.")
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
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: beside the ONNX.")] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Build a TensorRT engine with a dynamic batch; TensorRT for RTX builds without a GPU."""
    from evodeploy.artefacts import newest_export
    from evodeploy.builder.options import BuilderOptions

    if onnx is None:
        onnx = newest_export(Path())
        if onnx is None:
            raise UsageError("there is no ONNX file in this folder: `evodeploy export ckpt.pth` makes one")
        note(f"taking {onnx}, the newest ONNX file of this folder; name another to build from that")
    check_input(onnx, "an ONNX model")  # before its folder is found missing as that of the output
    path = output or onnx.with_suffix(".engine")
    outputs = [*_engine(path), *([(log, LOG)] if log else [])]
    if timing_cache is not None:
        shared = Path(os.path.realpath(timing_cache))  # what a link leads to
        check_distinct(shared, *(written for written, _ in outputs))
        check_output(shared, True, onnx, kind=TIMINGS)
    context.with_resource(claimed(outputs, force or dry_run, *filter(None, (onnx, images, timing_cache))))
    with needs("tensorrt-rtx"):
        from evodeploy.builder.pipeline import BuildRequest, build, prepare
    request = BuildRequest(
        onnx=onnx,
        output=path,
        precision=values.one_precision(fp16=fp16, bf16=bf16, fp32=fp32),
        profiles=_profiles(profile or [], (min_batch, opt_batch, max_batch)),
        runtime=runtime,
        targets=values.names("--target", target.lower()) if target else (),
        options=BuilderOptions(
            optimization_level, values.memory(workspace), timing_cache, version_compatible,
            cast("HardwareCompatibility | None", hardware_compatible), refittable, strip_plan, tf32,
        ),
        images=images,
        log=log,
    )  # fmt: skip
    if dry_run:
        _tell_prepared(request, prepare(request), as_json)
        return
    clock = Stopwatch()
    with _progress() as progress:
        record = build(request, progress=progress)
    if as_json:
        result_json(dataclasses.asdict(record) | {"engine": str(path), "seconds": clock.seconds})
        return
    for_what = ", ".join(record.targets) or "the GPU here"
    batches = "; ".join(map(str, record.profiles))
    rest = f", {record.rest} elsewhere," if record.rest else ""
    result(f"{path}  {size_of(path)}  {clock.seconds:.1f} s  {record.precision}{rest} for {for_what}, batch {batches}")
    result(f"{path}.json  what was built, and checksums")
    if record.stripped:
        result(f"next: evodeploy refit {path} {onnx} -o FULL.engine")
        return
    result(f"next: evodeploy bench {onnx} {path}")
    result(f"      evodeploy inspect {path}")


def refit(
    context: typer.Context,
    engine: Annotated[Path, typer.Argument(help="Built with --refittable or --strip-plan.")],
    onnx: Annotated[Path, typer.Argument(help="The same network with the weights to put in, in FP32.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The engine with these weights.")],
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Give an engine the weights of another ONNX file, without building it again; needs the GPU it was built for."""
    context.with_resource(claimed(_engine(output), force, onnx, *(path for path, _ in _engine(engine))))
    with needs("tensorrt"):
        from evodeploy.builder.refit import refit_engine
    clock = Stopwatch()
    refit_engine(engine, onnx, output)
    if as_json:
        result_json({"engine": str(output), "bytes": output.stat().st_size, "seconds": clock.seconds})
        return
    result(f"{output}  {size_of(output)}  {clock.seconds:.1f} s  with the weights of {onnx}")


def _tell_prepared(request: BuildRequest, prepared: Prepared, as_json: bool) -> None:
    facts = {
        "engine": str(request.output),
        "runtime": str(prepared.flavour),
        "precision": prepared.precision,
        "rest": prepared.rest,
        "targets": list(prepared.targets) or ["the GPU here"],
        "profiles": [dataclasses.asdict(profile) for profile in prepared.profiles],
        "options": {name: str(value) for name, value in request.options.chosen.items()},
        "attentions": prepared.attentions,
        "keys_widened": prepared.widened,
        "kept_fp32": prepared.kept_fp32,
        "largest_activation": prepared.largest_activation,
    }
    if as_json:
        result_json(facts)
        return
    rest = f", {prepared.rest} elsewhere," if prepared.rest else ""
    result(f"would build {request.output}: {prepared.precision}{rest} with {prepared.flavour}")
    result(f"  for {', '.join(prepared.targets) or 'the GPU here'}, batch {'; '.join(map(str, prepared.profiles))}")
    result(f"  {prepared.attentions} attentions, {len(prepared.kept_fp32)} nodes kept in FP32")
    for name, value in request.options.chosen.items():
        result(f"  {name.replace('_', ' ')}: {value}")


def _engine(path: Path) -> list[tuple[Path, Kind]]:
    """The files of an engine: itself and its record."""
    from evodeploy.engines.tensorrt.sidecar import sidecar_path

    return [(path, ENGINE), (sidecar_path(path), RECORD)]


def _profiles(texts: list[str], batches: Batches) -> tuple[Batches, ...]:
    """Those written MIN:OPT:MAX, or the one of the three options; raises UsageError for both."""
    if not texts:
        return (batches,)
    if any(batch is not None for batch in batches):
        raise UsageError("--profile and --min-batch, --opt-batch, --max-batch exclude each other: choose one way")
    return tuple(map(values.profile, texts))


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
