"""TensorRT and TensorRT for RTX: one API, and their few differences."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from evodeploy.errors import MissingExtraError, UnavailableError, UsageError
from evodeploy.machine.driver import architecture, driver_problem
from evodeploy.specs import Precision

_PACKAGES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_OLDEST = (10, 9)  # version of TensorRT, as in the extras: older ones lack names that are used here

# Builder options that TensorRT for RTX would ignore or fail on, with the reason. Measured with 1.7.1.116.
_RTX_LACKS = {
    "optimization_level": "its plans are the same at every level",
    "timing_cache": "it measures nothing while it builds, since kernels are finished on the GPU that runs them",
    "version_compatible": "it comes without a lean runtime",
    "hardware_compatible": "name the GPUs with --target",
}
_RTX_NEEDS_GPU = ("refittable", "strip_plan")


@dataclass(frozen=True)
class Flavour:
    """One installed TensorRT: `name` is the one on the command line, `trt` the Python module."""

    name: str
    trt: ModuleType

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def version(self) -> str:
        """The version of the library, such as 1.7.1.116."""
        return str(self.trt.__version__)

    @property
    def targets(self) -> dict[str, Any]:
        """The GPU architectures that it can build for without such a GPU, by name. Only RTX has any."""
        members = getattr(getattr(self.trt, "ComputeCapability", None), "__members__", {})
        return {name.lower(): member for name, member in members.items() if name.startswith("SM")}

    def resolve_targets(self, asked: tuple[str, ...], precision: Precision) -> tuple[str, ...]:
        """Return the targets to build for: by default the GPU here, or without one all that support `precision`.

        The result is empty for a flavour that builds for the GPU it runs on. Raises UsageError if a target is unknown
        or lacks `precision`, UnavailableError if the flavour needs a GPU to build, or has no target for the GPU here.
        """
        unknown = [name for name in asked if name not in self.targets]
        if unknown and not self.targets:
            raise UsageError(f"{self} builds for the GPU it runs on: leave out --target")
        if unknown:
            raise UsageError(f"unknown target {', '.join(unknown)}: expected some of {', '.join(self.targets)}")
        refused = self.refused_targets(precision)
        problem = None if asked else driver_problem()
        wanted = asked if asked or problem else self._target_here()
        if set(wanted) & set(refused):
            raise UsageError(
                f"{self.name} builds no {precision.upper()} engine for {', '.join(refused)}: "
                "build it from an FP32 ONNX with --fp16"
            )
        if problem is None:
            return tuple(dict.fromkeys(wanted))
        if not self.targets:
            raise UnavailableError(
                f"{self} needs an NVIDIA GPU to build, and here {problem}: build where the GPU is, "
                'or build for a named GPU with pip install "evodeploy[tensorrt-rtx]" and --runtime tensorrt-rtx'
            )
        return tuple(name for name in self.targets if name not in refused)

    def _target_here(self) -> tuple[str, ...]:
        """Return the architecture of the GPU here. By default TensorRT for RTX builds for every one from Ampere on."""
        if not self.targets:
            return ()
        here = architecture()
        if here not in self.targets:
            raise UnavailableError(
                f"{self} does not build for the GPU here ({here or 'of unknown architecture'}): use --runtime tensorrt "
                f"for it, or name other GPUs with --target, some of {', '.join(self.targets)}"
            )
        return (here,)

    def refused_targets(self, precision: Precision) -> tuple[str, ...]:
        """Return the targets whose kernels lack `precision`. SM75 of TensorRT for RTX multiplies matrices only in FP16.

        FP8 begins with Ada, SM89.
        """
        least = {"fp16": 75, "fp8": 89}.get(precision, 80)
        return tuple(name for name in self.targets if int(name.removeprefix("sm")) < least)

    def lacks(self, option: str) -> str:
        """Return why the builder option of that name cannot be used here, or an empty string if it can."""
        if self.name != "tensorrt-rtx":
            return ""
        problem = driver_problem() if option in _RTX_NEEDS_GPU else None
        return f"it needs a GPU for that, and here {problem}" if problem else _RTX_LACKS.get(option, "")

    def strongly_typed_network(self, builder: Any) -> Any:
        """Return an empty network that takes its types from the ONNX."""
        flag = self.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED  # the bit differs between major versions
        return builder.create_network(1 << int(flag))


def load_flavour(name: str | None = None) -> Flavour:
    """Load the flavour `name`; by default TensorRT with a working GPU, else RTX, or the only one that is installed."""
    if name is not None and name not in _PACKAGES:
        raise UsageError(f"no runtime is called '{name}': expected {' or '.join(_PACKAGES)}")
    preferred = list(_PACKAGES) if driver_problem() is None else list(reversed(_PACKAGES))
    candidates = [name] if name else preferred
    problems = {}
    for candidate in candidates:
        try:
            found = Flavour(candidate, importlib.import_module(_PACKAGES[candidate]))
            _check_age(found)
            return found
        except Exception as error:  # bindings without their libraries raise OSError, ImportError or other types
            problems[candidate] = error
    reasons = "; ".join(f"{key}: {(str(error) or repr(error)).splitlines()[0]}" for key, error in problems.items())
    raise MissingExtraError(f'TensorRT cannot be used here ({reasons}): pip install "evodeploy[{candidates[0]}]"')


def _check_age(flavour: Flavour) -> None:
    """Raise UnavailableError if it is a TensorRT before `_OLDEST`."""
    if flavour.name == "tensorrt" and tuple(map(int, flavour.version.split(".")[:2])) < _OLDEST:
        raise UnavailableError(f"{flavour.version} is older than {'.'.join(map(str, _OLDEST))}")
