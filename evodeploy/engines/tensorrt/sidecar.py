"""The JSON file next to every plan that describes what was built: a plan itself shows nothing before it runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from evodeploy.elastic import ElasticStage
from evodeploy.errors import BadFileError
from evodeploy.files import check_input, replacing, sha256
from evodeploy.schema import (
    SchemaError,
    boolean,
    mapping,
    matching,
    one_of,
    optional,
    read_json,
    read_json_file,
    record,
    sequence,
    text,
    whole,
)
from evodeploy.spec_rules import MODEL_INFO, TENSOR_SPEC
from evodeploy.specs import LARGEST_NAME, ModelInfo, Precision, Reduced, TensorSpec
from evodeploy.text import brief, json_text


@dataclass(frozen=True)
class Profile:
    """The batch sizes of an optimization profile: the range, and the size with the best speed."""

    min: int = 1
    opt: int = 32
    max: int = 128

    def __str__(self) -> str:
        return f"{self.min} to {self.max} (best at {self.opt})"


@dataclass(frozen=True)
class KeepProfile:
    """The number of tokens that each stage of an elastic plan may keep, in all profiles: the range and the optimum."""

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]

    def __str__(self) -> str:
        each = zip(self.min, self.opt, self.max, strict=True)
        return ", ".join(f"{low} to {high} (best at {best})" for low, best, high in each)


def keep_profile(info: ModelInfo | None) -> KeepProfile | None:
    """Return the profile of a model, optimal at its own keep ratios, or None if it is static."""
    if info is None or not info.elastic:
        return None
    low, high = zip(*((stage.low, stage.high) for stage in info.elastic), strict=True)
    return KeepProfile(low, info.keep_of(), high)


def profiles_for(batches: Iterable[int]) -> tuple[Profile, ...]:
    """Return one profile for each of `batches`, optimal at that size. Together they have no gap."""
    rising = sorted(set(batches))
    return tuple(Profile(low + 1, batch, batch) for low, batch in zip((0, *rising), rising, strict=False))


@dataclass(frozen=True)
class PlanRecord:
    """The description of a plan. `targets` is empty if it was built for the GPU of the build machine, `architecture`.

    Its inputs are the images and, for an elastic plan, the numbers of kept tokens, whose bounds are in `model`. `rest`
    is the precision of all other operations in a plan with quantized weights, None for FP32. `kept_fp32` maps the nodes
    that stayed FP32 in an FP16 plan to the reasons. Memory is in bytes. `attentions` is their number in the ONNX; a
    plan may run each as one kernel. `largest_activation` is the result of the check of FP16's range. Of the builder's
    options, only those that matter later are recorded. `tf32` says whether FP32 products may be TF32; it is None in
    older records.
    """

    runtime: str
    runtime_version: str
    targets: tuple[str, ...]
    precision: Precision
    profiles: tuple[Profile, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    model: ModelInfo | None
    source: str
    source_sha256: str
    plan_sha256: str
    plan_bytes: int
    weights_bytes: int | None = None
    activation_bytes: int | None = None
    kept_fp32: dict[str, str] = dataclasses.field(default_factory=dict)
    attentions: int | None = None
    evodeploy: str = ""
    architecture: str = ""
    version_compatible: bool = False
    hardware_compatible: str = ""
    refittable: bool = False
    stripped: bool = False
    tf32: bool | None = None
    largest_activation: str = ""
    rest: Reduced | None = None

    @property
    def elastic(self) -> tuple[ElasticStage, ...]:
        """The stages whose number of kept tokens each run chooses, with its bounds. Empty for a static plan."""
        return self.model.elastic if self.model else ()

    @property
    def keep(self) -> TensorSpec | None:
        """The input that holds these numbers, or None for a static plan."""
        return self.inputs[1] if self.elastic else None

    @property
    def may_be_tf32(self) -> bool:
        """Whether FP32 products may be TF32, which is TensorRT's default."""
        return self.tf32 is not False


def sidecar_path(plan: Path) -> Path:
    """Return the path of the record of `plan`: OUT.engine.json next to OUT.engine."""
    return plan.with_name(plan.name + ".json")


def write_sidecar(record: PlanRecord, plan: Path) -> Path:
    """Write the record next to `plan`, with texts shortened to the limits of `read_sidecar`.

    Raises BadFileError, and writes nothing, if anything else exceeds its limits.
    """
    path = sidecar_path(plan)
    short = dataclasses.replace(
        record,
        source=brief(record.source, LARGEST_NAME),
        largest_activation=brief(record.largest_activation, LARGEST_NAME),
        kept_fp32={_short(node, i): brief(why, _REASON) for i, (node, why) in enumerate(record.kept_fp32.items())},
    )
    content = json_text(dataclasses.asdict(short)) + "\n"
    try:
        PLAN_RECORD(read_json(content))
    except ValueError as error:  # includes SchemaError
        raise BadFileError(f"the record of {plan} could not be read again: {error}") from error
    with replacing(path) as draft:
        draft.write_text(content, encoding="utf-8")
    return path


def _short(node: str, index: int) -> str:
    """Return a node's name, shortened if necessary. The index distinguishes names with the same beginning."""
    return node if len(node) <= LARGEST_NAME else f"{brief(node, LARGEST_NAME - 20)} #{index}"


def read_sidecar(plan: Path) -> PlanRecord:
    """Return the record next to `plan`. Raises BadFileError if it is missing or invalid."""
    check_input(plan, "a TensorRT engine")
    path = sidecar_path(plan)
    if not path.exists():
        raise BadFileError(f"{path.name} is missing next to {plan}: copy it along, or build the engine again")
    content = read_json_file(path, "the record of an engine")
    try:
        return PLAN_RECORD(content)
    except SchemaError as error:
        raise BadFileError(f"{path} is not the record of an engine: {error}; build the engine again") from error


def check_intact(plan: Path, record: PlanRecord) -> None:
    """Raise BadFileError if `plan` is not the file that `record` describes."""
    if sha256(plan) != record.plan_sha256:
        raise BadFileError(f"{plan} differs from its record: it was altered or copied incompletely; build it again")


def _plan_record(**values: Any) -> PlanRecord:
    """Return the record if its inputs are those of its model. Raises SchemaError otherwise."""
    plan = PlanRecord(**values)
    expected = plan.model.inputs[1:] if plan.model else ()
    if plan.inputs[1:] != expected:
        got, words = (", then ".join(["the images", *map(str, specs)]) for specs in (plan.inputs[1:], expected))
        raise SchemaError("inputs", got, f"{words}, as the model says")
    return plan


def _profile(**values: Any) -> Profile:
    profile = Profile(**values)
    if not profile.min <= profile.opt <= profile.max:
        raise SchemaError("a profile", str(profile), "batches in rising order: min, opt, max")
    return profile


_BATCH = whole(1, 1_000_000)
_BYTES = optional(whole(0, 2**63))
_VERSION = matching(r"[\w.+-]{0,64}", "a version of letters, digits and dots")
_RUNTIME_VERSION = matching(r"\d{1,4}(\.[\w.+-]{1,59})?", "a version of letters, digits and dots, such as 10.13.0.35")
_SHA256 = matching(r"[0-9a-f]{64}", "a SHA-256 of 64 hexadecimal digits")
_LINE = text(LARGEST_NAME)
_REASON = 1000  # characters of the reason why a node stayed FP32
PLAN_RECORD = record(
    PlanRecord,
    _plan_record,
    runtime=matching(r"[\w-]{1,64}", "the name of a runtime"),
    runtime_version=_RUNTIME_VERSION,
    targets=sequence(matching(r"\w{1,32}", "an architecture such as sm89"), 0, 64),
    precision=one_of(*get_args(Precision)),
    profiles=sequence(record(Profile, _profile, min=_BATCH, opt=_BATCH, max=_BATCH), 1, 64),
    inputs=sequence(TENSOR_SPEC, 1, 2),
    outputs=sequence(TENSOR_SPEC, 1, 256),
    model=optional(MODEL_INFO),
    source=_LINE,
    source_sha256=matching(r"[0-9a-f]{64}|", "a SHA-256 of 64 hexadecimal digits, or nothing"),
    plan_sha256=_SHA256,
    plan_bytes=whole(0, 2**63),
    weights_bytes=_BYTES,
    activation_bytes=_BYTES,
    kept_fp32=mapping(text(_REASON), 100_000),
    attentions=optional(whole(0, 100_000)),
    evodeploy=_VERSION,
    architecture=matching(r"\w{0,32}", "an architecture such as sm89"),
    version_compatible=boolean(),
    hardware_compatible=matching(r"[\w-]{0,64}", "a level of compatibility"),
    refittable=boolean(),
    stripped=boolean(),
    tf32=optional(boolean()),
    largest_activation=_LINE,
    rest=optional(one_of(*get_args(Reduced))),
)
