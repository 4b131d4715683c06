"""The Python function that builds an ONNX file into an engine file."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from evodeploy.arguments import checked, several_names
from evodeploy.builder.decisions import decide
from evodeploy.builder.engine import build_decided
from evodeploy.builder.onnx_to_plan import Progress
from evodeploy.builder.options import BuilderOptions, HardwareCompatibility
from evodeploy.builder.record import Build
from evodeploy.builder.request import Batches, BuildRequest
from evodeploy.engines.tensorrt.sidecar import sidecar_path
from evodeploy.errors import UsageError
from evodeploy.files import check_distinct, check_input, check_output, claimed
from evodeploy.kinds import ENGINE, LOG, RECORD, TIMINGS, Kind
from evodeploy.specs import Precision


@checked
def build(
    onnx: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    precision: Precision | None = None,
    keep_fp32: Sequence[str] = (),
    min_batch: int | None = None,
    opt_batch: int | None = None,
    max_batch: int | None = None,
    profiles: Sequence[Batches] = (),
    runtime: str | None = None,
    targets: str | Sequence[str] = (),
    images: str | os.PathLike[str] | None = None,
    optimization_level: int | None = None,
    workspace: int | None = None,
    timing_cache: str | os.PathLike[str] | None = None,
    version_compatible: bool = False,
    hardware_compatible: HardwareCompatibility | None = None,
    refittable: bool = False,
    strip_plan: bool = False,
    tf32: bool | None = None,
    log: str | os.PathLike[str] | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
    force: bool = False,
) -> Build:
    """Build the ONNX file `onnx` into a TensorRT engine; TensorRT for RTX builds without a GPU.

    Args:
        onnx: The ONNX file.
        output: The engine to write, with its record next to it. Default: next to the ONNX.
        precision: The precision to convert floats to; by default that of the ONNX. For a quantized ONNX, it applies to
            the other operators.
        keep_fp32: Nodes that stay in FP32 when the others are converted: patterns of names and operator types, such as
            `blocks.11.*` and `Softmax`.
        min_batch: The smallest batch, 1 by default. A fixed batch in the ONNX is the default for all three.
        opt_batch: The batch to optimize for, 32 by default.
        max_batch: The largest batch, 128 by default.
        profiles: Instead of these, (min, opt, max) of each optimization profile.
        runtime: `tensorrt` or `tensorrt-rtx`; by default the one that is installed.
        targets: GPU architectures such as `sm89`. Default: the GPU here, or all if there is none.
        images: Images to measure the range of activations for FP16, instead of two random ones; see `evaluate`.
        optimization_level: 0 to 5: build longer for a faster engine.
        workspace: The bytes that a kernel may use besides its tensors.
        timing_cache: A file in which builds share their measurements of kernels.
        version_compatible: Let later versions of TensorRT run it, and the lean runtime.
        hardware_compatible: Let other GPUs run it.
        refittable: Let `refit` give it other weights.
        strip_plan: Leave the weights out; `refit` puts them in.
        tf32: Let FP32 products round their factors to TF32, which is TensorRT's default.
        log: A file for all messages of TensorRT, also if the build fails.
        dry_run: Check everything, return what would be built, and write nothing.
        progress: Called with each phase of TensorRT and the share of it that is done; False cancels the build.
        force: Replace existing outputs.

    Raises:
        BadFileError: The ONNX is damaged, or TensorRT cannot parse it.
        UsageError: A profile, target, precision or option is not possible.
        UnavailableError: A requirement is missing on this machine, or TensorRT failed.
        VerificationError: Activations exceed the range of FP16.

    After an error nothing is written, except the log.
    """
    begun = time.perf_counter()
    source = Path(onnx)
    check_input(source, "an ONNX model")  # before the folder of the output is reported missing
    batches = (min_batch, opt_batch, max_batch)
    if profiles and any(batch is not None for batch in batches):
        raise UsageError("--profile and --min-batch, --opt-batch, --max-batch exclude each other: choose one way")
    cache = None if timing_cache is None else Path(timing_cache)
    request = BuildRequest(
        onnx=source,
        output=source.with_suffix(".engine") if output is None else Path(output),
        precision=precision,
        profiles=tuple(profiles) or (batches,),
        runtime=runtime,
        targets=tuple(name.lower() for name in several_names(targets)),
        options=BuilderOptions(
            optimization_level, workspace, cache, version_compatible, hardware_compatible, refittable, strip_plan, tf32
        ),
        images=None if images is None else Path(images),
        log=None if log is None else Path(log),
        keep_fp32=tuple(keep_fp32),
    )
    outputs = [*engine_files(request.output), *([(request.log, LOG)] if request.log else [])]
    if cache is not None:
        shared = Path(os.path.realpath(cache))  # the target of a link
        check_distinct(shared, *(path for path, _ in outputs))
        check_output(shared, True, source, kind=TIMINGS)
    with claimed(outputs, force or dry_run, *filter(None, (source, request.images, cache))):
        decided = decide(request)
        record = None if dry_run else build_decided(request, decided, progress)
    return Build(request.output, time.perf_counter() - begun, decided.engine, record)


def engine_files(path: Path) -> list[tuple[Path, Kind]]:
    """Return the files of an engine: the engine itself and its record."""
    return [(path, ENGINE), (sidecar_path(path), RECORD)]
