"""The runtimes by name, and the one function that opens checkpoints, modules, ONNX files and plans."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from evodeploy.arguments import checked
from evodeploy.engines.base import Engine
from evodeploy.engines.deploy_file import DeployFile, artefact_of, at_stated_ratio, checked_artefact, read_deploy_file
from evodeploy.engines.device import cuda_index
from evodeploy.engines.torch_modes import TORCH_MODES
from evodeploy.errors import UsageError, needs
from evodeploy.kinds import ArtefactKind, is_deploy_file, kind_of
from evodeploy.models.hub import local
from evodeploy.specs import EngineOptions, ModelInfo

if TYPE_CHECKING:
    from torch import nn

Source: TypeAlias = "str | os.PathLike[str] | nn.Module"  # a path, a name on the hub, or a module


@dataclass(frozen=True)
class Opening:
    """One request to open a file or a module with the runtime `name`.

    `tokens` and `like` apply to checkpoints, see `open_engine`.
    """

    source: Path | nn.Module
    name: str
    options: EngineOptions
    tokens: bool
    like: ModelInfo | None

    @property
    def path(self) -> Path:
        """The source, for a runtime that runs only files."""
        assert isinstance(self.source, Path)  # a module counts as a checkpoint, which only PyTorch runs
        return self.source


@dataclass(frozen=True)
class Runtime:
    """A way to open an engine.

    It holds the kind of artefact that it runs, the package it needs, the options that it supports, and whether it
    computes only on a GPU.
    """

    runs: ArtefactKind
    package: str
    open: Callable[[Opening], Engine]
    honours: frozenset[str]
    on_gpu: bool = False

    @property
    def installed(self) -> bool:
        """Whether its package can be found. Whether it works is known only after opening."""
        return importlib.util.find_spec(self.package) is not None


def _torch(wanted: Opening) -> Engine:
    with needs("export"):
        from evodeploy.engines.torch_network import torch_engine
        from evodeploy.models.checkpoint import load_checkpoint, load_checkpoint_like
    source = wanted.source
    model = load_checkpoint(source) if wanted.like is None else load_checkpoint_like(source, wanted.like)
    return torch_engine(model, tokens=wanted.tokens, name=wanted.name, options=wanted.options)


def _onnxruntime(wanted: Opening) -> Engine:
    from evodeploy.engines.onnxruntime_engine import OnnxRuntimeEngine
    from evodeploy.engines.onnxruntime_providers import PROVIDERS

    return OnnxRuntimeEngine(wanted.path, wanted.options, PROVIDERS[wanted.name])


def _openvino(wanted: Opening) -> Engine:
    from evodeploy.engines.openvino_engine import OpenVinoEngine

    return OpenVinoEngine(wanted.path, wanted.options)


def _tensorrt(wanted: Opening) -> Engine:
    from evodeploy.engines.tensorrt.runner import TensorRtEngine

    return TensorRtEngine(wanted.path, wanted.options)


_TORCH = Runtime("checkpoint", "torch", _torch, frozenset({"threads", "device", "precision", "tf32"}))

# In order of preference among those for one kind of file and device.
RUNTIMES = {
    **dict.fromkeys(TORCH_MODES, _TORCH),
    "onnxruntime": Runtime("onnx", "onnxruntime", _onnxruntime, frozenset({"threads", "device"})),
    "openvino": Runtime("onnx", "openvino", _openvino, frozenset({"threads", "device", "precision", "fixed_keep"})),
    "onnxruntime-cuda": Runtime(
        "onnx", "onnxruntime", _onnxruntime, frozenset({"threads", "device", "cuda_graph", "tf32"}),
        on_gpu=True,
    ),
    "onnxruntime-tensorrt": Runtime(
        "onnx", "onnxruntime", _onnxruntime, frozenset({"threads", "device", "precision", "cuda_graph", "cache"}),
        on_gpu=True,
    ),
    "tensorrt": Runtime(  # does not use CPU threads
        "engine", "tensorrt", _tensorrt, frozenset({"threads", "device", "cuda_graph", "cache"}),
        on_gpu=True,
    ),
}  # fmt: skip


def resolved(source: Source) -> Path | nn.Module:
    """Return `source` as a path or a module, and fetch it if it is a name on the hub, see `hub.local`.

    Raises UsageError for any other type.
    """
    if isinstance(source, (str, os.PathLike)):
        return local(source)
    if not callable(getattr(source, "state_dict", None)):  # torch may not be installed
        raise UsageError(
            f"a source is of type {type(source).__name__}, expected a path, a name of the hub or a torch module"
        )
    return source


def several(sources: Source | Sequence[Source]) -> Sequence[Source]:
    """Return one source or several as a sequence."""
    return sources if isinstance(sources, Sequence) and not isinstance(sources, str) else (sources,)


def kind_of_source(source: Path | nn.Module) -> ArtefactKind:
    """Return the kind of `source`, or of the artefact in a deploy file; a module is a checkpoint. Raises UsageError."""
    return kind_of(artefact_of(source)) if isinstance(source, Path) else "checkpoint"


def title_of(source: Path | nn.Module) -> str:
    """Return the name of `source` in messages: its path, or the module's class."""
    return str(source) if isinstance(source, Path) else type(source).__name__


@checked
def open_engine(
    source: Source,
    name: str | None = None,
    options: EngineOptions | None = None,
    *,
    tokens: bool = False,
    like: ModelInfo | None = None,
) -> Engine:
    """Open a checkpoint, a PyTorch module, an ONNX file, a plan or a deploy file in the runtime `name`.

    By default this is the first installed runtime for the file that supports `options`: PyTorch for checkpoints. A
    checkpoint may also be a name on the hub, see `hub.local`. For modules see `models.adopted`. `tokens` adds the token
    selections of a checkpoint to its outputs. With `like`, a checkpoint selects tokens as the model described there
    does. Exported files already have fixed outputs and a fixed selection. A deploy file supplies what `name` and
    `options` leave open, see `engines.deploy_file`.

    Raises UsageError for an unknown name or suffix and for an option that the runtime does not support,
    MissingExtraError if no runtime for the file is installed, BadFileError if a file cannot be read.
    """
    opened = resolved(source)
    options = options or EngineOptions()
    if isinstance(opened, Path) and is_deploy_file(opened):
        stated = read_deploy_file(opened)
        artefact = checked_artefact(opened, stated)
        _check_stated(opened, stated, name, options)
        try:
            engine = open_engine(artefact, name or stated.engine, stated.under(options), tokens=tokens, like=like)
        except UsageError as error:
            raise UsageError(f"{opened}: {error}") from error
        return engine if options.fixed_keep is not None else at_stated_ratio(engine, opened, stated)
    name = runtime_for(opened, name, options)
    engine = RUNTIMES[name].open(Opening(opened, name, options, tokens, like))
    engine.converted = options.precision
    return engine


def runtime_for(source: Path | nn.Module, name: str | None, options: EngineOptions) -> str:
    """Return the name of the runtime that opens `source`: `name`, or the default described in `open_engine`.

    Raises UsageError if that runtime does not run it, or lacks an option that was set.
    """
    kind = kind_of_source(source)
    fitting = {key: runtime for key, runtime in RUNTIMES.items() if runtime.runs == kind}
    if name is None:
        name = _first(fitting, options)
    if name not in fitting:
        what = source if isinstance(source, Path) else "a module"
        export = ", or an export" if name in RUNTIMES and RUNTIMES[name].runs == "onnx" else ""
        raise UsageError(f"the engine '{name}' does not run {what}: expected {' or '.join(fitting)}{export}")
    check_honoured(name, fitting[name].honours, options)
    return name


def _check_stated(path: Path, stated: DeployFile, name: str | None, options: EngineOptions) -> None:
    """Raise UsageError if the engine `name`, chosen by the caller, cannot do what the deploy file `path` states."""
    if name not in RUNTIMES or RUNTIMES[name].runs != kind_of(stated.artefact):  # refused later, with a better message
        return
    lacking = _asked(stated.under(options)) - _asked(options) - RUNTIMES[name].honours
    if lacking:
        raise UsageError(
            f"{path} states {' and '.join(sorted(lacking))}, which the engine '{name}' has no option for: leave the "
            f"engine out, or name the artefact {path.parent / stated.artefact} itself"
        )


def _first(fitting: dict[str, Runtime], options: EngineOptions) -> str:
    """Return the first installed runtime for the device and the options, or the first one if none is installed."""
    on_gpu = options.device is not None and cuda_index(options.device) is not None
    there = [key for key, runtime in fitting.items() if runtime.on_gpu == on_gpu] or list(fitting)
    able = [key for key in there if _asked(options) <= fitting[key].honours] or there
    return next((key for key in able if fitting[key].installed), able[0])


def check_honoured(name: str, honours: frozenset[str], options: EngineOptions) -> None:
    """Raise UsageError if `options` sets an option that the engine `name` would ignore, one not in `honours`."""
    if options.precision in ("int8", "fp8"):
        raise UsageError(
            f"{options.precision.upper()} is a property of the file, not of how it is run: export it with "
            f"--{options.precision} --images DIR"
        )
    for option in sorted(_asked(options) - honours):
        others = "" if option != "fixed_keep" else ", or choose the engine 'openvino', which has it"
        raise UsageError(
            f"the engine '{name}' has no option {option} (got {getattr(options, option)}): leave it out{others}"
        )


def _asked(options: EngineOptions) -> set[str]:
    """Return the names of the options that differ from their defaults."""
    return {field.name for field in dataclasses.fields(options) if getattr(options, field.name) != field.default}
