"""The JSON file beside every plan that says what was built: a plan itself tells nothing before it runs."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evodeploy.errors import BadFileError
from evodeploy.files import check_input, replacing
from evodeploy.specs import ModelInfo, Precision, Reduced, TensorSpec


@dataclass(frozen=True)
class Profile:
    """The batch sizes of an optimization profile: the range, and the one to be fastest at."""

    min: int = 1
    opt: int = 32
    max: int = 128

    def __str__(self) -> str:
        return f"{self.min} to {self.max} (best at {self.opt})"


@dataclass(frozen=True)
class PlanRecord:
    """What a plan is. `targets` is empty where it was built for the GPU of the building machine, `architecture`.

    `rest` is what a plan whose weights are quantized computes in elsewhere, None for FP32. `kept_fp32` names the nodes
    that stayed FP32 in an FP16 plan, with the reason of each; memory is in bytes;
    `attentions` is how many the ONNX had, each of which a plan may hold as one kernel; `largest_activation` what the
    check of FP16's range found; of the builder's options those that matter later.
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


def sidecar_path(plan: Path) -> Path:
    """Where the record of `plan` lies: OUT.engine.json beside OUT.engine."""
    return plan.with_name(plan.name + ".json")


def write_sidecar(record: PlanRecord, plan: Path) -> Path:
    """Write the record beside `plan`."""
    path = sidecar_path(plan)
    text = json.dumps(dataclasses.asdict(record), indent=1, ensure_ascii=False) + "\n"
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")
    return path


def read_sidecar(plan: Path) -> PlanRecord:
    """The record beside `plan`; raises BadFileError where it is missing or not one."""
    check_input(plan, "a TensorRT engine")
    path = sidecar_path(plan)
    if not path.exists():
        raise BadFileError(f"{path.name} is missing beside {plan}: copy it along, or build the engine again")
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        known = {field.name for field in dataclasses.fields(PlanRecord)}
        values = {name: value for name, value in values.items() if name in known}
        values["profiles"] = tuple(Profile(**profile) for profile in values["profiles"])
        values["targets"] = tuple(values["targets"])
        for side in ("inputs", "outputs"):
            values[side] = tuple(TensorSpec(v["name"], v["dtype"], tuple(v["shape"])) for v in values[side])
        values["model"] = ModelInfo.from_dict(values["model"]) if values["model"] else None
        return PlanRecord(**values)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadFileError(f"{path} is not the record of an engine ({error}): build the engine again") from error
