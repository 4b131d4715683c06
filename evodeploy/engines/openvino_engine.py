"""The OpenVINO engine, on the CPU."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evodeploy.engines.base import Array, Engine
from evodeploy.engines.interface import batch_range, check_interface
from evodeploy.engines.out_of_memory import means_out_of_memory
from evodeploy.errors import (
    BadFileError,
    EvodeployError,
    InputError,
    OutOfMemoryError,
    UnavailableError,
    UsageError,
    needs,
)
from evodeploy.files import check_input
from evodeploy.machine.cpu import saturates_int8
from evodeploy.onnx_files import parse_info
from evodeploy.specs import KEEP, METADATA_KEY, EngineOptions, ModelInfo, TensorSpec
from evodeploy.text import reason

_NO_NODES = {"Constant", "Parameter", "Result"}  # node types that compute nothing
_MARK = np.frombuffer(b"No answr", np.uint8)  # two floats above 1e17, or one integer above 1e18


class OpenVinoEngine(Engine):
    """Runs an ONNX file on the CPU, in float32 unless the options name another precision, or at a `fixed_keep`.

    OpenVINO computes one batch at a time. Each running thread takes its own infer request from a pool, so that one
    thread computes while others read their outputs. With `counting`, each run is timed node by node, see `times`.
    """

    name = "openvino"

    def __init__(self, path: Path, options: EngineOptions | None = None, *, counting: bool = False) -> None:
        super().__init__()
        options = options or EngineOptions()
        if options.device not in (None, "cpu"):
            raise UsageError(f"the engine 'openvino' runs on the CPU only, got device {options.device}")
        check_input(path, "an ONNX model")
        with needs("cpu"):
            import openvino as ov

        # By default OpenVINO would choose bfloat16 if the processor supports it.
        hint = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}[options.precision or "fp32"]
        properties: dict[str, Any] = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}
        if saturates_int8():
            properties["LP_TRANSFORMS_MODE"] = "NO"  # a file in INT8 is computed in FP32 between its roundings
        if counting:
            properties["PERF_COUNT"] = True
        if options.threads:
            properties["INFERENCE_NUM_THREADS"] = options.threads
            properties["ENABLE_CPU_PINNING"] = False  # or two processes with one thread each would share the first core
        with _loading(path):
            model = ov.Core().read_model(path)
        key = ["framework", METADATA_KEY]
        self.info = parse_info(model.get_rt_info(key).value, path) if model.has_rt_info(key) else None
        check_interface(path, *_interface(model), self.info)
        with _loading(path):
            if options.fixed_keep is not None:
                self.info = _with_fixed_keep(model, self.info, options.fixed_keep)
            self._compile = partial(_compiled, model, properties)
            self._requests: _Requests | None = _Requests(self._compile())
        actual = self._requests.compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        if actual != hint:
            raise UnavailableError(f"OpenVINO computes in {actual} on this processor, although {hint} was asked for")
        self._one_at_a_time = threading.Lock()
        self.inputs, self.outputs = _interface(model)
        self.batch = batch_range(self.inputs)

    def _run(self, images: Array, keep: tuple[int, ...]) -> dict[str, Array]:
        with self._one_at_a_time:
            if self._requests is None:
                self._requests = _Requests(self._compile())
            requests = self._requests
            request = requests.taken()
            try:
                self._infer(request, images, keep)
            except BaseException:
                self._requests = None  # after a failure, a compiled model can fail again or return wrong outputs
                raise
        outputs = {
            spec.name: np.array(tensor.data) for spec, tensor in zip(self.outputs, request.output_tensors, strict=True)
        }
        requests.idle.append(request)
        return outputs

    def times(self) -> list[tuple[str, str, float]]:
        """Return the name, type and seconds of each node that the last run of this thread computed, in order.

        The engine must have been opened with `counting`, and no other thread may use it. OpenVINO marks a node that
        took less than a microsecond as not run, and gives no implementation for nodes that were fused into others.
        """
        assert self._requests is not None  # set by the last run
        found = self._requests.idle[-1].get_profiling_info()
        ran = (each for each in found if each.exec_type != "undef" and each.node_type not in _NO_NODES)
        return [(each.node_name, each.node_type, each.real_time.total_seconds()) for each in ran]

    def compiled_graph(self) -> Any:
        """Return the graph that OpenVINO runs, as a separate model."""
        assert self._requests is not None
        return self._requests.compiled.get_runtime_model()

    def _infer(self, request: Any, images: Array, keep: tuple[int, ...]) -> None:
        """Compute the outputs of `request`. Raises OutOfMemoryError if OpenVINO silently computed nothing.

        With one thread OpenVINO reports no error when memory runs out, and leaves the outputs unchanged. So each output
        gets a mark before the run, which a network overwrites.
        """
        for tensor, spec in zip(request.output_tensors, self.outputs, strict=True):
            _mark(tensor, spec)
        request.infer(self._fed(images, keep), share_inputs=True)
        if any(_is_marked(tensor) for tensor in request.output_tensors):
            raise OutOfMemoryError(f"{self.name} runs out of memory at batch {len(images)}: use a smaller batch")

    def _close(self) -> None:
        self._requests = None
        del self._compile


class _Requests:
    """The infer requests of one compiled model, as many as threads have used at the same time."""

    def __init__(self, compiled: Any) -> None:
        self.compiled = compiled
        self.idle = [compiled.create_infer_request()]

    def taken(self) -> Any:
        """Return the request that was used last, or a new one if all are in use."""
        return self.idle.pop() if self.idle else self.compiled.create_infer_request()


@contextmanager
def _loading(path: Path) -> Iterator[None]:
    """Translate the exceptions that OpenVINO raises while it loads `path`."""
    import openvino as ov

    try:
        yield
    except EvodeployError:
        raise
    except Exception as error:  # OpenVINO raises RuntimeError and its own subclasses for any reason
        kind = OutOfMemoryError if means_out_of_memory(error) else BadFileError
        raise kind(f"OpenVINO {ov.__version__} cannot load {path}: {reason(error, -1)}") from error


def _with_fixed_keep(model: Any, info: ModelInfo | None, ratios: float | Sequence[float]) -> ModelInfo:
    """Replace the model's input `keep` by the numbers of tokens that `ratios` keep. Returns the new metadata.

    All sizes except the batch are then known at compilation. Raises InputError if the model is not elastic, or does not
    accept the ratios.
    """
    from openvino import opset13

    if info is None:
        raise InputError("the file carries no evodeploy metadata, so it has no keep ratio to fix: leave it out")
    keep = info.keep_of(ratios)
    parameter = next(port.get_node() for port in model.inputs if port.any_name == KEEP)
    parameter.output(0).replace(opset13.constant(np.array(keep, np.int64)).output(0))
    model.remove_parameter(parameter)
    model.validate_nodes_and_infer_types()
    return dataclasses.replace(info, elastic=(), keep_ratios=info.ratios_of(ratios))


def _compiled(model: Any, properties: dict[str, Any]) -> Any:
    """Compile `model` in a new Core. A Core whose model failed crashes the process when it compiles again."""
    import openvino as ov

    return ov.Core().compile_model(model, "CPU", properties)


def _mark(tensor: Any, spec: TensorSpec) -> None:
    """Write `_MARK`, which no network computes, at the end of an output. If it is too small, empty it if it can grow.

    Emptying would always work, but makes a run slower than writing eight bytes.
    """
    if tensor.byte_size >= len(_MARK):
        _end_of(tensor)[:] = _MARK
    elif spec.shape and spec.shape[0] is None:
        tensor.shape = [0, *tensor.shape[1:]]


def _is_marked(tensor: Any) -> bool:
    return tensor.size == 0 or (tensor.byte_size >= len(_MARK) and bool((_end_of(tensor) == _MARK).all()))


def _end_of(tensor: Any) -> NDArray[np.uint8]:
    """Return the last bytes of a tensor as a writable view, as many as `_MARK` has."""
    end: NDArray[np.uint8] = tensor.data.reshape(-1).view(np.uint8)[-len(_MARK) :]
    return end


def _interface(model: Any) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return the inputs and outputs of the model."""
    return tuple(map(_spec, model.inputs)), tuple(map(_spec, model.outputs))


def _spec(port: Any) -> TensorSpec:
    shape = tuple(None if size.is_dynamic else size.get_length() for size in port.partial_shape)
    return TensorSpec(port.any_name, np.dtype(port.element_type.to_dtype()).name, shape)
