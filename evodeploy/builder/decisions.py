"""The decisions before TensorRT starts: all options are checked, and the ONNX is converted in memory."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evodeploy.builder.onnx_to_plan import check_profile
from evodeploy.builder.options import check_options
from evodeploy.builder.request import Batches, BuildRequest
from evodeploy.engines.device import onnxruntime_extra
from evodeploy.engines.tensorrt.flavour import Flavour, load_flavour
from evodeploy.engines.tensorrt.sidecar import KeepProfile, Profile, keep_profile
from evodeploy.errors import BadFileError, UnavailableError, UsageError, needs
from evodeploy.machine.driver import driver_problem
from evodeploy.onnx_files import info_of, input_spec, onnx_sha256, output_specs, precision_of, read_onnx
from evodeploy.specs import Precision, Reduced

if TYPE_CHECKING:
    import onnx

_log = logging.getLogger(__name__)

OPT_BATCH = 32
MAX_BATCH = 128


@dataclass(frozen=True)
class Decisions:
    """The properties of an engine to build.

    `rest` is the precision of the other operators in a quantized network, None for FP32. `targets` is empty for the GPU
    here. `keys_widened` is how many of the `attentions` had their keys widened. `kept_fp32` names the nodes that stay
    FP32, with reasons. `largest_activation` is empty if it was not measured. `options` are the builder options that
    were set. `keep` is the range of tokens that an elastic engine may keep, None for a static one.
    """

    runtime: str
    precision: Precision
    rest: Reduced | None
    targets: tuple[str, ...]
    profiles: tuple[Profile, ...]
    options: dict[str, str]
    attentions: int
    keys_widened: int
    kept_fp32: dict[str, str]
    largest_activation: str
    keep: KeepProfile | None = None


@dataclass(frozen=True)
class Decided:
    """The ONNX as read and as TensorRT will parse it, the TensorRT that parses it, and the engine's properties.

    `checksum` was taken before the file was read. The file may change before the engine is built.
    """

    source: onnx.ModelProto
    checksum: str
    proto: onnx.ModelProto
    flavour: Flavour
    engine: Decisions


def read_source(path: Path) -> tuple[str, onnx.ModelProto]:
    """Return the checksum and the content of the ONNX file `path`. Raises the same errors as `read_onnx`.

    The checksum is computed first: a file that is replaced meanwhile must not count as built.
    """
    return onnx_sha256(path), read_onnx(path)


def decide(request: BuildRequest) -> Decided:
    """Check everything and convert the ONNX in memory. Choices that were made by default are logged.

    Raises BadFileError if the ONNX cannot be read, UsageError if a profile, target, precision or option is not
    possible, UnavailableError if something is missing on this machine, VerificationError if activations exceed the
    range of FP16.
    """
    return decide_on(request, *read_source(request.onnx))


def decide_on(request: BuildRequest, checksum: str, model: onnx.ModelProto) -> Decided:
    """Do the same as `decide`, for the result of `read_source`."""
    held = precision_of(model)
    conversion = _conversion(request, held)
    quantized = held in ("int8", "fp8")
    precision = held if quantized else conversion or held
    profiles = _profiles(request.profiles, model)
    flavour = load_flavour(request.runtime)
    check_options(flavour, request.options, len(profiles))
    with needs("onnx"):
        from evodeploy.graph.attention import attentions, with_wide_keys
        from evodeploy.graph.keeping import has_fp32_products
        from evodeploy.graph.precision import reduced_from_onnx
    wide = with_wide_keys(model)
    if wide.count:
        _log.info(
            f"widening the keys of {wide.count} attentions to the width of their values, because engines fuse "
            "only attentions with equal widths"
        )
    converted = wide
    if conversion is not None:
        converted = reduced_from_onnx(wide.model, conversion, request.keep_fp32)
        converted.check_changed(conversion, request.keep_fp32)
    highest = "fp32" if precision == "fp16" and has_fp32_products(converted.model) else precision
    targets = flavour.resolve_targets(request.targets, highest)
    if not request.targets and targets:
        _log.info(_chosen(targets, flavour, highest))
    largest = _largest_activation(model, request.images, converted.kept) if conversion == "fp16" else ""
    return Decided(
        model,
        checksum,
        converted.model,
        flavour,
        Decisions(
            runtime=str(flavour),
            precision=precision,
            rest=conversion if quantized else None,
            targets=targets,
            profiles=profiles,
            options={name: str(value) for name, value in request.options.chosen.items()},
            attentions=sum(1 for _ in attentions(model.graph)),
            keys_widened=wide.count,
            kept_fp32=dict(converted.kept),
            largest_activation=largest,
            keep=keep_profile(info_of(model)),
        ),
    )


def _conversion(request: BuildRequest, held: Precision) -> Reduced | None:
    """Return the precision to convert the floats of an ONNX with `held` weights to, or None. Raises UsageError."""
    wanted = request.precision or held
    if wanted == held:
        if request.images is not None:
            raise UsageError("--images is for the range check of --fp16: add --fp16 for an FP32 ONNX, or leave it out")
        if request.keep_fp32:
            raise UsageError(
                "--keep-fp32 is for --fp16 and --bf16: add one for an FP32 ONNX, or leave it out; an ONNX that "
                "is converted already keeps its FP32 nodes"
            )
        return None
    if wanted == "fp32":
        raise UsageError(f"{request.onnx} holds {held.upper()} weights: leave out --fp32, or export it again")
    if wanted == "int8" or wanted == "fp8":
        raise UsageError(f"{request.onnx} holds {held.upper()} weights: export it with --{wanted} --images DIR")
    return wanted


def _profiles(asked: tuple[Batches, ...], model: onnx.ModelProto) -> tuple[Profile, ...]:
    """Return the profiles `asked` for, or one with the default range, if the input allows them. Raises UsageError."""
    spec = input_spec(model)
    output_specs(model)  # raises if they do not fit the record
    return tuple(check_profile(_profile(batches, spec.shape[0]), spec) for batches in asked or ((None,) * 3,))


def _profile(batches: Batches, fixed: int | None) -> Profile:
    """Return a profile with the missing values filled in. A fixed batch is the default for all three."""
    low, best, high = batches
    low = low if low is not None else fixed or 1
    high = high if high is not None else fixed or max(MAX_BATCH, best or 0, low)
    return Profile(low, best if best is not None else fixed or min(max(OPT_BATCH, low), high), high)


def _chosen(targets: tuple[str, ...], flavour: Flavour, precision: Precision) -> str:
    """Return the log message about targets that were not named."""
    if driver_problem() is None:
        return f"building for the GPU here, {targets[0]}: name others with --target"
    left_out = flavour.refused_targets(precision)
    lacking = f"; not for {', '.join(left_out)}, which has no {precision.upper()} kernels in {flavour}"
    every = f"no GPU here: building for every target that {flavour} knows: {', '.join(targets)}"
    return every + (lacking if left_out else "")


def _largest_activation(model: onnx.ModelProto, folder: Path | None, kept: Collection[str]) -> str:
    """Return the largest activation on the images of `folder`, or on random ones; '' with a warning if impossible."""
    try:
        with needs(onnxruntime_extra()):
            from evodeploy.graph.ranges import largest_activation

        return str(largest_activation(model, folder, kept))
    except (BadFileError, UnavailableError, UsageError) as error:
        if folder is not None:
            raise
        _log.warning(f"cannot check whether FP16 holds every activation: {error}")
        return ""
