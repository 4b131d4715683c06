"""A plan as an engine. This version builds plans and does not run them yet."""

from __future__ import annotations

from pathlib import Path

from evodeploy.engines.base import Engine
from evodeploy.engines.tensorrt.driver import driver_problem
from evodeploy.engines.tensorrt.sidecar import read_sidecar
from evodeploy.errors import UnavailableError


def open_plan(path: Path) -> Engine:
    """Refuse, in one sentence, for as long as plans cannot be run: raises UnavailableError."""
    record = read_sidecar(path)
    problem = driver_problem()
    if problem is not None:
        raise UnavailableError(
            f"{path} is a {record.runtime} engine and runs on an NVIDIA GPU only, and here {problem}: "
            f"use the ONNX it was built from ({record.source})"
        )
    raise UnavailableError(f"this version of evodeploy builds TensorRT engines but does not run them yet ({path})")
