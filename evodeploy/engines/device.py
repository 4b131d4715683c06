"""Names of devices: cpu, cuda, cuda:N."""

from __future__ import annotations

import re

from evodeploy.errors import UsageError
from evodeploy.machine.driver import driver_problem


def cuda_index(device: str | None) -> int | None:
    """Return the number of the GPU that `device` names, or None for the CPU; unnamed is the first GPU.

    Raises UsageError for what is no device's name.
    """
    if device == "cpu":
        return None
    match = re.fullmatch(r"cuda(?::(\d+))?", device or "cuda")
    if match is None:
        raise UsageError(f"no device is called '{device}': expected cpu, cuda or cuda:N")
    return int(match[1] or 0)


def onnxruntime_extra() -> str:
    """The extra that brings ONNX Runtime: where a GPU works that for both, since it excludes the one for the CPU."""
    return "gpu" if driver_problem() is None else "cpu"
