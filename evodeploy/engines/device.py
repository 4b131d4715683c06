"""Device names: cpu, cuda, cuda:N."""

from __future__ import annotations

import re

from evodeploy.errors import UsageError
from evodeploy.machine.driver import driver_problem


def cuda_index(device: str | None) -> int | None:
    """Return the number of the GPU that `device` names, or None for the CPU. None and "cuda" mean the first GPU.

    Raises UsageError if it is not the name of a device.
    """
    if device == "cpu":
        return None
    match = re.fullmatch(r"cuda(?::(\d+))?", device or "cuda")
    if match is None:
        raise UsageError(f"no device is called '{device}': expected cpu, cuda or cuda:N")
    return int(match[1] or 0)


def onnxruntime_extra() -> str:
    """Return the extra for ONNX Runtime: with a working GPU the GPU build, since the two builds exclude each other."""
    return "gpu" if driver_problem() is None else "cpu"
