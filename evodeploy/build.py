"""ONNX file to engine file: precision converted in the ONNX, built, checked, and recorded beside the plan."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from evodeploy import __version__
from evodeploy.engines.tensorrt.builder import Progress, check_precision, check_profile, plan_from_onnx
from evodeploy.engines.tensorrt.driver import architecture
from evodeploy.engines.tensorrt.flavour import load_flavour
from evodeploy.engines.tensorrt.sidecar import PlanRecord, Profile, write_sidecar
from evodeploy.errors import UsageError, needs
from evodeploy.files import replacing, sha256
from evodeploy.onnx_files import info_of, input_spec, precision_of, read_onnx, weight_elements, write_onnx
from evodeploy.specs import Precision

OPT_BATCH = 32
MAX_BATCH = 128


@dataclass(frozen=True)
class BuildRequest:
    """What to build. `precision` None keeps the ONNX file's precision; batches are (min, opt, max), None by default."""

    onnx: Path
    output: Path
    precision: Precision | None = None
    batches: tuple[int | None, int | None, int | None] = (None, None, None)
    runtime: str | None = None
    targets: tuple[str, ...] = ()


def build(request: BuildRequest, tell: Callable[[str], None], progress: Progress | None = None) -> PlanRecord:
    """Write the engine and its sidecar, and return what was built; `tell` hears of choices made on the way.

    Raises BadFileError for an ONNX that cannot be read or parsed, UsageError for a profile, target or precision that
    cannot be honoured, UnavailableError without a TensorRT that can build here, and RuntimeFailedError where the build
    fails or an FP16 engine turns out to be FP32. On any of them nothing is written.
    """
    model = read_onnx(request.onnx)
    spec = input_spec(model)
    profile = check_profile(_profile(request.batches, spec.shape[0]), spec)
    held = precision_of(model)
    precision = request.precision or held
    flavour = load_flavour(request.runtime)
    targets = flavour.resolve_targets(request.targets, precision)
    if not request.targets and targets:
        tell(f"no GPU here: building for every target that {flavour} knows: {', '.join(targets)}")
        left_out = flavour.refused_targets(precision)
        if left_out:
            tell(f"not for {', '.join(left_out)}, which has no {precision.upper()} kernels in {flavour}")
    with needs("export"):
        from evodeploy.export.attention import attentions, with_wide_keys
    prepared, widened = with_wide_keys(model)
    if widened:
        tell(f"widening the keys of {widened} attentions to their values' width: engines fuse no others")
    kept_fp32: dict[str, str] = {}
    if precision != held:
        with needs("export"):
            from evodeploy.export.precision import reduced_from_onnx
        if precision == "fp32":
            raise UsageError(f"{request.onnx} holds {held.upper()} weights: leave out --fp32, or export it again")
        reduced = reduced_from_onnx(prepared, precision)
        kept_fp32, prepared = reduced.kept_fp32, reduced.proto
    with tempfile.TemporaryDirectory(prefix="evodeploy-") as folder:
        source = request.onnx
        if prepared is not model:
            source = Path(folder, request.onnx.name)
            write_onnx(prepared, source)
        tell(f"building {precision.upper()} with {flavour}")
        built = plan_from_onnx(source, flavour, profile, precision, targets, progress)
    check_precision(built, precision, sum(weight_elements(tensor) for tensor in model.graph.initializer))
    with replacing(request.output) as draft:
        draft.write_bytes(built.plan)
    info = info_of(model)
    record = PlanRecord(
        runtime=flavour.name,
        runtime_version=flavour.version,
        targets=targets,
        precision=precision,
        profile=profile,
        inputs=built.inputs,
        outputs=built.outputs,
        model=dataclasses.replace(info, precision=precision) if info else None,
        source=request.onnx.name,
        source_sha256=sha256(request.onnx),
        plan_sha256=sha256(request.output),
        plan_bytes=len(built.plan),
        weights_bytes=built.weights_bytes,
        activation_bytes=built.activation_bytes,
        kept_fp32=kept_fp32,
        attentions=sum(1 for _ in attentions(model.graph)),
        evodeploy=__version__,
        architecture="" if targets else architecture(),
    )
    write_sidecar(record, request.output)
    return record


def _profile(batches: tuple[int | None, int | None, int | None], fixed: int | None) -> Profile:
    """What was asked for, the rest filled in so that it fits: a fixed batch is the default for all three."""
    low, best, high = batches
    low = low if low is not None else fixed or 1
    high = high if high is not None else fixed or max(MAX_BATCH, best or 0, low)
    return Profile(low, best if best is not None else fixed or min(max(OPT_BATCH, low), high), high)
