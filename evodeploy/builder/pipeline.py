"""ONNX file to engine file: precision converted in the ONNX, built, checked, and recorded beside the plan."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evodeploy import __version__
from evodeploy.builder.log import BuildLog
from evodeploy.builder.onnx_to_plan import Progress, check_profile, plan_from_onnx
from evodeploy.builder.options import BuilderOptions, check_options
from evodeploy.engines.device import onnxruntime_extra
from evodeploy.engines.tensorrt.flavour import Flavour, load_flavour
from evodeploy.engines.tensorrt.sidecar import PlanRecord, Profile, write_sidecar
from evodeploy.errors import UsageError, needs
from evodeploy.files import replacing, sha256
from evodeploy.locks import scratch
from evodeploy.machine.driver import architecture, driver_problem
from evodeploy.onnx_files import (
    info_of,
    input_spec,
    output_specs,
    precision_of,
    read_onnx,
    write_onnx,
)
from evodeploy.preprocess import as_input, folder_pictures
from evodeploy.specs import Precision, Reduced

if TYPE_CHECKING:
    import onnx

_log = logging.getLogger(__name__)

Batches = tuple[int | None, int | None, int | None]
OPT_BATCH = 32
MAX_BATCH = 128


@dataclass(frozen=True)
class BuildRequest:
    """What to build. `precision` None keeps the ONNX file's precision; of a quantized file it is that of all the rest.

    `profiles` empty means one of the default range.

    A profile's batches are (min, opt, max), each None by default. `images` is a folder to measure the range of
    activations on before FP16; `log` a file for all that TensorRT says.
    """

    onnx: Path
    output: Path
    precision: Precision | None = None
    profiles: tuple[Batches, ...] = ()
    runtime: str | None = None
    targets: tuple[str, ...] = ()
    options: BuilderOptions = dataclasses.field(default_factory=BuilderOptions)
    images: Path | None = None
    log: Path | None = None


@dataclass(frozen=True)
class Prepared:
    """All that is decided before TensorRT starts: the ONNX as it will be parsed, and what that took.

    `rest` is what a quantized network computes in elsewhere, None for FP32. Of its `attentions` the keys of `widened`
    were widened; `kept_fp32` names the nodes that stay FP32, with reasons.
    """

    source: onnx.ModelProto
    proto: onnx.ModelProto
    flavour: Flavour
    precision: Precision
    rest: Reduced | None
    profiles: tuple[Profile, ...]
    targets: tuple[str, ...]
    attentions: int
    widened: int
    kept_fp32: dict[str, str]
    largest_activation: str


def prepare(request: BuildRequest) -> Prepared:
    """Check everything and convert the ONNX, in memory; choices made on the way are logged.

    Raises BadFileError for an ONNX that cannot be read, UsageError for a profile, target, precision or option that
    cannot be honoured, UnavailableError without a TensorRT that can build here, VerificationError for activations that
    FP16 cannot hold.
    """
    model = read_onnx(request.onnx)
    spec = input_spec(model)
    output_specs(model)  # refused here where they do not fit the record
    asked = request.profiles or ((None, None, None),)
    profiles = tuple(check_profile(_profile(batches, spec.shape[0]), spec) for batches in asked)
    held = precision_of(model)
    quantized = held in ("int8", "fp8")
    precision = held if quantized else request.precision or held
    flavour = load_flavour(request.runtime)
    check_options(flavour, request.options, len(profiles))
    targets = flavour.resolve_targets(request.targets, precision)
    if not request.targets and targets:
        _log.info(_chosen(targets, flavour, precision))
    with needs("onnx"):
        from evodeploy.graph.attention import attentions, with_wide_keys
        from evodeploy.graph.precision import reduced_from_onnx
    proto, widened = with_wide_keys(model)
    if widened:
        _log.info(f"widening the keys of {widened} attentions to their values' width: engines fuse no others")
    kept_fp32: dict[str, str] = {}
    largest = ""
    wanted: Precision = request.precision or held
    rest: Reduced | None = None
    if wanted != held:
        if wanted == "fp32":
            raise UsageError(f"{request.onnx} holds {held.upper()} weights: leave out --fp32, or export it again")
        if wanted == "int8" or wanted == "fp8":
            raise UsageError(f"{request.onnx} holds {held.upper()} weights: export it with --{wanted} --images DIR")
        if wanted == "fp16":
            largest = _largest_activation(model, request.images)
        rest = wanted if quantized else None
        reduced = reduced_from_onnx(proto, wanted)
        kept_fp32, proto = reduced.kept_fp32, reduced.proto
    elif request.images is not None:
        raise UsageError("--images serves the check of FP16's range: add --fp16 for an FP32 ONNX, or leave it out")
    count = sum(1 for _ in attentions(model.graph))
    return Prepared(model, proto, flavour, precision, rest, profiles, targets, count, widened, kept_fp32, largest)


def build(request: BuildRequest, progress: Progress | None = None) -> PlanRecord:
    """Write the engine and its sidecar, and return what was built; raises as `prepare` does.

    And BadFileError for an ONNX that TensorRT cannot parse, RuntimeFailedError where the build fails or an FP16 engine
    turns out to be FP32. On any of them nothing is written. A log that cannot be written is a UsageError at the end:
    the engine is kept.
    """
    prepared = prepare(request)
    flavour, options = prepared.flavour, request.options
    with scratch() as folder, _build_log(request) as log:
        source = request.onnx
        if prepared.proto is not prepared.source:
            source = folder / request.onnx.name
            write_onnx(prepared.proto, source)
        around = f" with {prepared.rest.upper()} around it" if prepared.rest else ""
        _log.info(f"building {prepared.precision.upper()}{around} with {flavour}")
        floats = prepared.rest or prepared.precision
        built = plan_from_onnx(source, flavour, prepared.profiles, floats, prepared.targets, options, log, progress)
    with replacing(request.output) as draft:
        draft.write_bytes(built.plan)
    info = info_of(prepared.source)
    record = PlanRecord(
        runtime=flavour.name,
        runtime_version=flavour.version,
        targets=prepared.targets,
        precision=prepared.precision,
        rest=prepared.rest,
        profiles=prepared.profiles,
        inputs=built.inputs,
        outputs=built.outputs,
        model=dataclasses.replace(info, precision=prepared.precision) if info else None,
        source=request.onnx.name,
        source_sha256=sha256(request.onnx),
        plan_sha256=sha256(request.output),
        plan_bytes=len(built.plan),
        weights_bytes=built.weights_bytes,
        activation_bytes=built.activation_bytes,
        kept_fp32=prepared.kept_fp32,
        attentions=prepared.attentions,
        evodeploy=__version__,
        architecture="" if prepared.targets else architecture(),
        version_compatible=options.version_compatible,
        hardware_compatible=options.hardware_compatible or "",
        refittable=options.refittable or options.strip_plan,
        stripped=options.strip_plan,
        tf32=built.tf32,
        largest_activation=prepared.largest_activation,
    )
    write_sidecar(record, request.output)
    if log.loss is not None:
        why = log.loss.strerror or log.loss
        raise UsageError(f"the engine {request.output} is complete, its log {request.log} is not: {why}")
    return record


def _chosen(targets: tuple[str, ...], flavour: Flavour, precision: Precision) -> str:
    """The sentence for targets that nobody named."""
    if driver_problem() is None:
        return f"building for the GPU here, {targets[0]}: name others with --target"
    left_out = flavour.refused_targets(precision)
    lacking = f"; not for {', '.join(left_out)}, which has no {precision.upper()} kernels in {flavour}"
    every = f"no GPU here: building for every target that {flavour} knows: {', '.join(targets)}"
    return every + (lacking if left_out else "")


def _profile(batches: Batches, fixed: int | None) -> Profile:
    """What was asked for, the rest filled in so that it fits: a fixed batch is the default for all three."""
    low, best, high = batches
    low = low if low is not None else fixed or 1
    high = high if high is not None else fixed or max(MAX_BATCH, best or 0, low)
    return Profile(low, best if best is not None else fixed or min(max(OPT_BATCH, low), high), high)


def _largest_activation(model: onnx.ModelProto, folder: Path | None) -> str:
    """What becomes largest in the FP32 `model` on the images in `folder`; empty where there is none to measure on."""
    if folder is None:
        return ""
    with needs(onnxruntime_extra()):
        from evodeploy.graph.ranges import check_fp16_range

    info = info_of(model)
    if info is None:
        raise UsageError("the ONNX does not say how images are prepared: export its checkpoint with `evodeploy export`")
    largest = str(check_fp16_range(model, as_input(folder_pictures(folder, info), info)))
    _log.info(f"largest activation: {largest}; FP16 holds 65504")
    return largest


@contextlib.contextmanager
def _build_log(request: BuildRequest) -> Iterator[BuildLog]:
    if request.log is None:
        yield BuildLog()
        return
    try:
        file = request.log.open("w", encoding="utf-8", buffering=1)  # a line is there as soon as TensorRT says it
    except OSError as error:
        raise UsageError(f"cannot write the log to {request.log}: {error.strerror or error}") from error
    try:  # what a build says is kept when it fails too: that is what a log is for
        yield BuildLog(file)
    finally:
        with contextlib.suppress(OSError):  # of a line that did not fit, which the log knows
            file.close()
