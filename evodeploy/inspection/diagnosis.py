"""Checking which of the pipeline's tools work on this machine, by trying them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from evodeploy.engines.device import onnxruntime_extra
from evodeploy.engines.tensorrt.flavour import load_flavour
from evodeploy.errors import EvodeployError, UnavailableError, needs
from evodeploy.machine.cores import usable_cores
from evodeploy.machine.cpu import processor_name
from evodeploy.machine.driver import driver_problem
from evodeploy.text import reason


def diagnose() -> list[dict[str, Any]]:
    """Return one finding per tool: name, whether it works, and its version and devices, or the problem and its fix."""
    probes: dict[str, Callable[[], str]] = {
        "processor": lambda: f"{processor_name()}, {usable_cores()} cores",
        "NVIDIA GPU": _gpu,
        "pycuda": _pycuda,
        "torch": _torch,
        "onnx": _onnx,
        "onnxruntime": _onnxruntime,
        "openvino": _openvino,
        "tensorrt": lambda: _tensorrt("tensorrt"),
        "tensorrt-rtx": lambda: _tensorrt("tensorrt-rtx"),
    }
    return [_found(name, probe) for name, probe in probes.items()]


def _found(name: str, probe: Callable[[], str]) -> dict[str, Any]:
    try:
        return {"name": name, "works": True, "detail": probe()}
    except EvodeployError as error:
        return {"name": name, "works": False, "detail": str(error)}
    except Exception as error:  # a package without its libraries raises OSError, RuntimeError or others
        return {"name": name, "works": False, "detail": reason(error)}


def _gpu() -> str:
    problem = driver_problem()
    if problem is not None:
        raise UnavailableError(problem)
    return "the driver works"


def _pycuda() -> str:
    with needs("cuda"):
        import cuda.bindings.driver
        import pycuda
    problem = driver_problem()
    if problem is not None:
        raise UnavailableError(f"{pycuda.VERSION_TEXT} is installed, but needs a GPU: {problem}")
    import pycuda.driver

    return f"{pycuda.VERSION_TEXT}, cuda-bindings {cuda.bindings.__version__}"


def _torch() -> str:
    with needs("export"):
        import torch
    return f"{torch.__version__}, {'CUDA' if torch.cuda.is_available() else 'CPU'}"


def _onnx() -> str:
    with needs("export"):
        import onnx
        import onnxscript
    return f"{onnx.__version__}, onnxscript {onnxscript.__version__}"


def _onnxruntime() -> str:
    with needs(onnxruntime_extra()):
        import onnxruntime
    providers = ", ".join(name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers())
    return f"{onnxruntime.__version__}, {providers}"


def _openvino() -> str:
    with needs("cpu"):
        import openvino
    return f"{openvino.__version__}, {', '.join(openvino.Core().available_devices)}"


def _tensorrt(name: str) -> str:
    flavour = load_flavour(name)
    if flavour.targets:
        return f"{flavour.version}, builds here for {', '.join(flavour.targets)}"
    problem = driver_problem()
    if problem is not None:
        raise UnavailableError(f"{flavour.version} is installed, but builds on a machine with a GPU only: {problem}")
    return f"{flavour.version}, builds for the GPU here"
