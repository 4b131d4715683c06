"""Options of the TensorRT builder."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from evodeploy.engines.tensorrt.flavour import Flavour
from evodeploy.errors import UsageError

HardwareCompatibility = Literal["ampere-plus", "same-capability"]


@dataclass(frozen=True)
class BuilderOptions:
    """Builder options, of which None and False leave the choice to TensorRT.

    `optimization_level` is 0 to 5: a higher one takes longer and gives a faster plan. `workspace` is the limit in bytes
    on a kernel's memory besides its tensors. `timing_cache` is a file in which builds share their measurements. A
    `version_compatible` plan runs in later versions, a `hardware_compatible` one on further GPUs. A `refittable` plan
    can get other weights; with `strip_plan` it contains none. `tf32` lets FP32 products round their factors to ten
    bits.
    """

    optimization_level: int | None = None
    workspace: int | None = None
    timing_cache: Path | None = None
    version_compatible: bool = False
    hardware_compatible: HardwareCompatibility | None = None
    refittable: bool = False
    strip_plan: bool = False
    tf32: bool | None = None

    def __post_init__(self) -> None:
        """Raise UsageError for values that no builder accepts."""
        if self.optimization_level is not None and not 0 <= self.optimization_level <= 5:
            raise UsageError(f"the optimization level is {self.optimization_level}, expected 0 to 5")
        if self.workspace is not None and self.workspace < 1:
            raise UsageError(f"the workspace is {self.workspace} bytes, expected 1 or more")
        levels = get_args(HardwareCompatibility)
        if self.hardware_compatible not in (None, *levels):
            raise UsageError(f"hardware compatibility is '{self.hardware_compatible}', expected {' or '.join(levels)}")

    @property
    def chosen(self) -> dict[str, Any]:
        """The options that were set, by name."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if value is not None and value is not _DEFAULTS[name]}


_DEFAULTS = {field.name: field.default for field in dataclasses.fields(BuilderOptions)}


def check_options(flavour: Flavour, options: BuilderOptions, profiles: int = 1) -> None:
    """Raise UsageError if `flavour` would ignore one of `options`, or fail on it with that number of `profiles`."""
    for name in options.chosen:
        reason = flavour.lacks(name)
        if reason:
            raise UsageError(f"{flavour} does not honour --{name.replace('_', '-')} ({reason}): leave it out")
    for name in ("refittable", "strip_plan"):
        problem = _refit_problem(flavour, options, profiles) if name in options.chosen else ""
        if problem:
            raise UsageError(f"--{name.replace('_', '-')} {problem}")


def _refit_problem(flavour: Flavour, options: BuilderOptions, profiles: int) -> str:
    """Return why a refittable engine cannot be built this way, according to NVIDIA; empty if it can."""
    if options.version_compatible:
        return (
            "and --version-compatible exclude each other, because the lean runtime cannot refit: leave out one of them"
        )
    if profiles > 1:
        return f"allows one profile, got {profiles}: TensorRT supports only one in an engine that can be refitted"
    if flavour.name == "tensorrt" and flavour.version.startswith("11.3.0"):
        return f"may drop a bias in {flavour}, as its release notes say: leave it out, or use another version"
    return ""


def apply_options(flavour: Flavour, config: Any, options: BuilderOptions) -> None:
    """Set `options`, already checked, on a builder's `config`. The timing cache is set by `shared_timings`."""
    flags = flavour.trt.BuilderFlag
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.workspace is not None:
        config.set_memory_pool_limit(flavour.trt.MemoryPoolType.WORKSPACE, options.workspace)
    if options.version_compatible:
        config.set_flag(flags.VERSION_COMPATIBLE)
    if options.hardware_compatible is not None:
        levels = flavour.trt.HardwareCompatibilityLevel
        chosen = {"ampere-plus": "AMPERE_PLUS", "same-capability": "SAME_COMPUTE_CAPABILITY"}
        config.hardware_compatibility_level = getattr(levels, chosen[options.hardware_compatible])
    if options.refittable or options.strip_plan:
        config.set_flag(flags.REFIT)
    if options.strip_plan:
        config.set_flag(flags.STRIP_PLAN)
    if options.tf32 is not None:
        (config.set_flag if options.tf32 else config.clear_flag)(flags.TF32)
