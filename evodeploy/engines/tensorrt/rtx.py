"""What only TensorRT for RTX does on the GPU: it finishes kernels just in time, and records CUDA graphs itself."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evodeploy.engines.tensorrt.flavour import Flavour
from evodeploy.engines.tensorrt.plan import Plan
from evodeploy.errors import EvodeployError, RuntimeFailedError, UsageError
from evodeploy.files import replacing
from evodeploy.specs import EngineOptions

_log = logging.getLogger(__name__)


def is_rtx(flavour: Flavour) -> bool:
    """Return whether this flavour finishes its kernels on the GPU."""
    return flavour.name == "tensorrt-rtx"


def configure(plan: Plan, plan_sha256: str, architecture: str, options: EngineOptions) -> Callable[[], None]:
    """Apply `options` to the contexts that `plan` makes. Returns a function that saves the finished kernels.

    The first run of each batch size waits until its kernels are finished. By default TensorRT would meanwhile run
    slower, general kernels, whose results differ a little, and would not record them as a graph. All contexts share the
    finished kernels. They are saved in the folder `options.cache`, in one file for each plan and GPU. TensorRT ignores
    a file of another driver. If it cannot be written, a warning gives the reason. Raises UsageError if the folder
    cannot be made or read.
    """
    trt = plan.flavour.trt
    config = plan.config = plan.runtime_config()
    config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
    config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
    if options.cuda_graph:
        config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    kernels = plan.kernels = config.create_runtime_cache()
    config.set_runtime_cache(kernels)
    if options.cache is None:
        return lambda: None
    path = options.cache / f"{plan_sha256[:16]}-{architecture}.rtx-cache"
    known = _read(path)
    if known:
        kernels.deserialize(known)

    def save() -> None:
        try:
            _write(path, kernels.serialize(), known)
        except EvodeployError as error:  # the engine has done its work, and the next start works without the file
            _log.warning("the compiled kernels cannot be kept: %s", error)

    return save


def _read(path: Path) -> bytes:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise UsageError(f"cannot use the cache {path}: {error.strerror or error}") from error


def _write(path: Path, kernels: Any, known: bytes) -> None:
    if kernels is None:
        raise RuntimeFailedError("TensorRT gave no kernels")
    held = bytes(kernels)
    if held != known:
        with replacing(path) as draft:
            draft.write_bytes(held)
