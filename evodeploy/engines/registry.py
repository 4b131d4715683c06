"""Engines by name, and which of them runs which file."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from evodeploy.engines.base import Engine
from evodeploy.errors import UsageError
from evodeploy.specs import EngineOptions


@dataclass(frozen=True)
class Runtime:
    """How an engine is opened.

    The file suffix it runs, the package it needs, the extra that brings it, and the options that it can honour.
    """

    suffix: str
    package: str
    extra: str
    open: Callable[[Path, EngineOptions], Engine]
    honours: frozenset[str]

    @property
    def installed(self) -> bool:
        """Whether its package can be found; whether it works is known once it is opened."""
        return importlib.util.find_spec(self.package) is not None


def _onnxruntime(path: Path, options: EngineOptions) -> Engine:
    from evodeploy.engines.onnxruntime_engine import OnnxRuntimeEngine

    return OnnxRuntimeEngine(path, options)


def _openvino(path: Path, options: EngineOptions) -> Engine:
    from evodeploy.engines.openvino_engine import OpenVinoEngine

    return OpenVinoEngine(path, options)


def _tensorrt(path: Path, options: EngineOptions) -> Engine:
    from evodeploy.engines.tensorrt.runner import open_plan

    return open_plan(path, options)


RUNTIMES = {
    "onnxruntime": Runtime(".onnx", "onnxruntime", "cpu", _onnxruntime, frozenset({"threads", "device"})),
    "openvino": Runtime(".onnx", "openvino", "cpu", _openvino, frozenset({"threads", "device", "precision"})),
    "tensorrt": Runtime(  # computes on no CPU thread
        ".engine", "tensorrt", "tensorrt", _tensorrt, frozenset({"threads", "device", "cuda_graph", "cache"})
    ),
}


def open_engine(path: Path | str, name: str | None = None, options: EngineOptions | None = None) -> Engine:
    """Open the engine called `name` on `path`, or the first installed one that runs such a file.

    Checkpoints are not opened here: they need the network's code, see `evodeploy.load`. Raises UsageError for an
    unknown name or suffix and for an option that the engine cannot honour, MissingExtraError where no runtime for the
    file is installed.
    """
    path, options = Path(path), options or EngineOptions()
    fitting = {key: runtime for key, runtime in RUNTIMES.items() if runtime.suffix == path.suffix}
    if not fitting:
        raise UsageError(f"no engine runs '{path.suffix}' files ({path}): expected .onnx or .engine")
    if name is None:
        name = next((key for key, runtime in fitting.items() if runtime.installed), next(iter(fitting)))
    if name not in fitting:
        raise UsageError(f"the engine '{name}' does not run {path}: expected {' or '.join(fitting)}")
    runtime = fitting[name]
    check_honoured(name, runtime.honours, options)
    return runtime.open(path, options)


def check_honoured(name: str, honours: frozenset[str], options: EngineOptions) -> None:
    """Raise UsageError where `options` say something that the engine `name`, which honours these, would ignore."""
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if value not in (None, False) and field.name not in honours:
            raise UsageError(f"the engine '{name}' has no option {field.name} (got {value}): leave it out")
