"""Engines by name, and which of them runs which file."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from evodeploy.engines.base import Engine
from evodeploy.errors import UsageError


@dataclass(frozen=True)
class Runtime:
    """How an engine is opened: the file suffix it runs, the package it needs and the extra that brings it."""

    suffix: str
    package: str
    extra: str
    open: Callable[[Path, int | None], Engine]

    @property
    def installed(self) -> bool:
        """Whether its package can be found; whether it works is known once it is opened."""
        return importlib.util.find_spec(self.package) is not None


def _onnxruntime(path: Path, threads: int | None) -> Engine:
    from evodeploy.engines.onnxruntime_engine import OnnxRuntimeEngine

    return OnnxRuntimeEngine(path, threads=threads)


def _openvino(path: Path, threads: int | None) -> Engine:
    from evodeploy.engines.openvino_engine import OpenVinoEngine

    return OpenVinoEngine(path, threads=threads)


def _tensorrt(path: Path, threads: int | None) -> Engine:
    from evodeploy.engines.tensorrt.runner import open_plan

    return open_plan(path)


RUNTIMES = {
    "onnxruntime": Runtime(".onnx", "onnxruntime", "cpu", _onnxruntime),
    "openvino": Runtime(".onnx", "openvino", "cpu", _openvino),
    "tensorrt": Runtime(".engine", "tensorrt", "tensorrt", _tensorrt),
}


def open_engine(path: Path | str, name: str | None = None, *, threads: int | None = None) -> Engine:
    """Open the engine called `name` on `path`, or the first installed one that runs such a file.

    Checkpoints are not opened here: they need the network's code, see `evodeploy.load`. Raises UsageError for an
    unknown name or suffix, MissingExtraError where no runtime for the file is installed.
    """
    path = Path(path)
    fitting = {key: runtime for key, runtime in RUNTIMES.items() if runtime.suffix == path.suffix}
    if not fitting:
        raise UsageError(f"no engine runs '{path.suffix}' files ({path}): expected .onnx or .engine")
    if name is not None:
        if name not in fitting:
            raise UsageError(f"the engine '{name}' does not run {path}: expected {' or '.join(fitting)}")
        return fitting[name].open(path, threads)
    ready = [runtime for runtime in fitting.values() if runtime.installed]
    return (ready or list(fitting.values()))[0].open(path, threads)
