"""Engines by name, and which of them runs which file."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from evodeploy.engines.base import Engine
from evodeploy.engines.device import cuda_index
from evodeploy.errors import UsageError
from evodeploy.files import suffix_of
from evodeploy.specs import EngineOptions


@dataclass(frozen=True)
class Runtime:
    """How an engine is opened.

    The file suffix it runs, the package it needs, the extra that brings it, the options that it can honour, and
    whether it computes on a GPU.
    """

    suffix: str
    package: str
    extra: str
    open: Callable[[Path, EngineOptions], Engine]
    honours: frozenset[str]
    on_gpu: bool = False

    @property
    def installed(self) -> bool:
        """Whether its package can be found; whether it works is known once it is opened."""
        return importlib.util.find_spec(self.package) is not None


def _onnxruntime(path: Path, options: EngineOptions) -> Engine:
    from evodeploy.engines.onnxruntime_engine import OnnxRuntimeEngine

    return OnnxRuntimeEngine(path, options)


def _onnxruntime_cuda(path: Path, options: EngineOptions) -> Engine:
    from evodeploy.engines.onnxruntime_engine import OnnxRuntimeEngine
    from evodeploy.engines.onnxruntime_providers import ON_CUDA

    return OnnxRuntimeEngine(path, options, ON_CUDA)


def _onnxruntime_tensorrt(path: Path, options: EngineOptions) -> Engine:
    from evodeploy.engines.onnxruntime_engine import OnnxRuntimeEngine
    from evodeploy.engines.onnxruntime_providers import ON_TENSORRT

    return OnnxRuntimeEngine(path, options, ON_TENSORRT)


def _openvino(path: Path, options: EngineOptions) -> Engine:
    from evodeploy.engines.openvino_engine import OpenVinoEngine

    return OpenVinoEngine(path, options)


def _tensorrt(path: Path, options: EngineOptions) -> Engine:
    from evodeploy.engines.tensorrt.runner import TensorRtEngine

    return TensorRtEngine(path, options)


# In the order of preference among those for one kind of file and device.
RUNTIMES = {
    "onnxruntime": Runtime(".onnx", "onnxruntime", "cpu", _onnxruntime, frozenset({"threads", "device"})),
    "openvino": Runtime(".onnx", "openvino", "cpu", _openvino, frozenset({"threads", "device", "precision"})),
    "onnxruntime-cuda": Runtime(
        ".onnx", "onnxruntime", "gpu", _onnxruntime_cuda, frozenset({"threads", "device", "cuda_graph", "tf32"}),
        on_gpu=True,
    ),
    "onnxruntime-tensorrt": Runtime(
        ".onnx", "onnxruntime", "gpu", _onnxruntime_tensorrt,
        frozenset({"threads", "device", "precision", "cuda_graph", "cache"}), on_gpu=True,
    ),
    "tensorrt": Runtime(  # computes on no CPU thread
        ".engine", "tensorrt", "tensorrt", _tensorrt, frozenset({"threads", "device", "cuda_graph", "cache"}),
        on_gpu=True,
    ),
}  # fmt: skip


def open_engine(path: str | os.PathLike[str], name: str | None = None, options: EngineOptions | None = None) -> Engine:
    """Open the engine called `name` on `path`, or the first installed one that runs such a file as `options` say.

    Checkpoints are not opened here: they need the network's code, see `evodeploy.load`. Raises UsageError for an
    unknown name or suffix and for an option that the engine cannot honour, MissingExtraError where no runtime for the
    file is installed.
    """
    path, options = Path(path), options or EngineOptions()
    fitting = {key: runtime for key, runtime in RUNTIMES.items() if runtime.suffix == suffix_of(path)}
    if not fitting:
        raise UsageError(f"no engine runs '{path.suffix}' files ({path}): expected .onnx or .engine")
    if name is None:
        on_gpu = options.device is not None and cuda_index(options.device) is not None
        there = [key for key, runtime in fitting.items() if runtime.on_gpu == on_gpu] or list(fitting)
        able = [key for key in there if _asked(options) <= fitting[key].honours] or there
        name = next((key for key in able if fitting[key].installed), able[0])
    if name not in fitting:
        raise UsageError(f"the engine '{name}' does not run {path}: expected {' or '.join(fitting)}")
    runtime = fitting[name]
    check_honoured(name, runtime.honours, options)
    return runtime.open(path, options)


def check_honoured(name: str, honours: frozenset[str], options: EngineOptions) -> None:
    """Raise UsageError where `options` say something that the engine `name`, which honours these, would ignore."""
    if options.precision in ("int8", "fp8"):
        raise UsageError(
            f"{options.precision.upper()} is a property of the file, not of how it is run: export it with "
            f"--{options.precision} --images DIR"
        )
    for option in sorted(_asked(options) - honours):
        raise UsageError(f"the engine '{name}' has no option {option} (got {getattr(options, option)}): leave it out")


def _asked(options: EngineOptions) -> set[str]:
    """The names of the options that say something."""
    return {field.name for field in dataclasses.fields(options) if getattr(options, field.name) != field.default}
