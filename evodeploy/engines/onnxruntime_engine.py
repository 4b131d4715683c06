"""The ONNX Runtime engine: on the CPU, or on a GPU through its CUDA or TensorRT provider."""

from __future__ import annotations

import contextlib
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

from evodeploy.engines.base import Array, Engine
from evodeploy.engines.device import cuda_index, onnxruntime_extra
from evodeploy.engines.interface import batch_range, check_interface
from evodeploy.engines.onnxruntime_binding import BoundBatch
from evodeploy.engines.onnxruntime_providers import ON_CPU, PROFILE, Provider, cache_prefix, elastic_profile
from evodeploy.engines.out_of_memory import means_out_of_memory
from evodeploy.errors import BadFileError, EvodeployError, OutOfMemoryError, UnavailableError, UsageError, needs
from evodeploy.files import check_input
from evodeploy.machine.cpu import saturates_int8
from evodeploy.onnx_files import parse_info
from evodeploy.specs import METADATA_KEY, EngineOptions, TensorSpec
from evodeploy.text import reason

SESSIONS = 8  # at most, one for each batch size, if a session holds a single CUDA graph

OPTIMIZED = "optimized.onnx"  # the graph that ONNX Runtime runs, in the folder of a trace

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    **{f"tensor({name})": name for name in ("float16", "bool", "int8", "int16", "int32", "int64")},
    **{f"tensor({name})": name for name in ("uint8", "uint16", "uint32", "uint64")},
}


class OnnxRuntimeEngine(Engine):
    """Runs an ONNX file with one execution provider. With `cuda_graph` its tensors stay on the GPU.

    With a folder `trace`, ONNX Runtime writes its optimized graph there, and a trace of all runs when `end_trace` is
    called.
    """

    def __init__(
        self, path: Path, options: EngineOptions | None = None, provider: Provider = ON_CPU, trace: Path | None = None
    ) -> None:
        super().__init__()
        options = options or EngineOptions()
        self.name = provider.name
        self._index = cuda_index(options.device) if options.device or provider.on_gpu else None
        if (self._index is not None) != provider.on_gpu:
            where = "an NVIDIA GPU" if provider.on_gpu else "the CPU"
            raise UsageError(f"the engine '{self.name}' runs on {where}, got device {options.device}")
        check_input(path, "an ONNX model")
        with needs(onnxruntime_extra()):
            import onnxruntime as ort

        chosen = provider.chain[0]
        if chosen not in ort.get_available_providers():
            raise UnavailableError(
                f"ONNX Runtime {ort.__version__} here is a build without {chosen}: replace it, pip uninstall "
                'onnxruntime && pip install "evodeploy[gpu]"'
            )
        if provider.on_gpu:
            with contextlib.redirect_stdout(sys.stderr):  # it prints there which libraries it does not find
                ort.preload_dlls()  # CUDA and cuDNN installed by pip, which are found in no other way
        profile = _profile_of(path) if provider.profiled else {}
        kept = cache_prefix(path, options) if provider.profiled else {}
        self._new_session = partial(_new_session, path, provider, options, {**profile, **kept}, trace)
        self._session = self._new_session()
        self.tf32 = provider.tf32 if options.tf32 is None else options.tf32
        self.device = "cpu" if self._index is None else f"cuda:{self._index}"
        self.inputs = tuple(_spec(value) for value in self._session.get_inputs())
        self.outputs = tuple(_spec(value) for value in self._session.get_outputs())
        self.info = parse_info(self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY), path)
        check_interface(path, self.inputs, self.outputs, self.info)
        if options.cuda_graph and self.info is not None and self.info.elastic:
            raise UsageError(
                f"{path} is elastic, but a CUDA graph of the engine '{self.name}' has one shape: leave out cuda_graph"
            )
        self.batch = PROFILE if profile and self.inputs[0].shape[0] is None else batch_range(self.inputs)
        self._bound: dict[int, BoundBatch] | None = {} if options.cuda_graph else None
        self._one_graph = provider.one_graph
        self._one_at_a_time = threading.Lock()

    def end_trace(self) -> Path:
        """Return the trace of the runs so far, a JSON list of events in Chrome's format. Later runs are not in it."""
        return Path(self._session.end_profiling())

    def _run(self, images: Array, keep: tuple[int, ...]) -> dict[str, Array]:
        if self._bound is not None:
            return self._run_bound(self._bound, images)
        values = self._session.run(None, self._fed(images, keep))
        return {spec.name: value for spec, value in zip(self.outputs, values, strict=True)}

    def _run_bound(self, bound: dict[int, BoundBatch], images: Array) -> dict[str, Array]:
        batch = len(images)
        with self._one_at_a_time:
            found = bound.pop(batch, None)
            if found is None:
                if self._one_graph and len(bound) >= SESSIONS:
                    del bound[next(iter(bound))]  # the least recently used
                where = ("cpu", 0) if self._index is None else ("cuda", self._index)
                session = self._new_session() if self._one_graph and bound else self._session
                found = BoundBatch(session, self.inputs, self.outputs, batch, *where)
            bound[batch] = found
            return found.run(images)

    def _close(self) -> None:
        self._bound = None
        del self._session


def _profile_of(path: Path) -> dict[str, str]:
    """Return the `elastic_profile` of the file `path`. Raises BadFileError.

    The file is loaded without initialising a session, which needs kernels: the CPU has none for BF16.
    """
    import onnxruntime as ort
    from onnxruntime.capi import _pybind_state as native

    session, model = ort.SessionOptions(), _model(path)
    session.log_severity_level = 4
    try:
        read = native.InferenceSession(session, model, isinstance(model, str), False)
    except Exception as error:
        raise _failure(path, error) from error
    info = parse_info(read.model_meta.custom_metadata_map.get(METADATA_KEY), path)
    return elastic_profile([_spec(value) for value in read.inputs_meta], info)


def _new_session(
    path: Path, provider: Provider, options: EngineOptions, further: dict[str, str], trace: Path | None
) -> Any:
    """Open `path` with `provider`, which computes all of it. Raises the same errors as the engine."""
    import onnxruntime as ort

    session = ort.SessionOptions()
    # Its log lines contain unescaped node names and repeat the exception. On a GPU errors are logged nevertheless,
    # because they name the missing libraries.
    session.log_severity_level = 3 if provider.on_gpu else 4
    session.add_session_config_entry("session.force_spinning_stop", "1")  # idle workers leave the cores to others
    if saturates_int8():  # elsewhere this only makes INT8 products slower
        session.add_session_config_entry("session.x64quantprecision", "1")
    if trace is not None:
        session.enable_profiling = True
        session.profile_file_prefix = str(trace / "trace")
        session.optimized_model_filepath = str(trace / OPTIMIZED)
        session.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
    if options.threads:
        session.intra_op_num_threads = options.threads
    chosen = provider.chain[0]
    opened = _opened(path, session, provider.configured(options, further))
    if opened.get_providers()[0] != chosen:
        raise UnavailableError(
            f"ONNX Runtime {ort.__version__} has {chosen}, but it does not start here: no GPU, or libraries "
            "missing, which ONNX Runtime names on stderr"
        )
    opened.disable_fallback()
    return opened


def _opened(path: Path, session: Any, providers: list[Any], fused: bool = True) -> Any:
    import onnxruntime as ort

    try:
        with contextlib.redirect_stdout(sys.stderr):  # ONNX Runtime prints there that it falls back to the CPU
            return ort.InferenceSession(_model(path), session, providers=providers)
    except Exception as error:  # ONNX Runtime has a separate exception type for each status code
        # Before 1.32 it fuses FP8 products into an integer one. Without VNNI it fails on a weight that is fused twice.
        if fused and any(cause in str(error) for cause in ("float8", "replace the existing tensor")):
            session.add_session_config_entry("session.disable_quant_qdq", "1")
            return _opened(path, session, providers, fused=False)
        raise _failure(path, error) from error


def _failure(path: Path, error: Exception) -> EvodeployError:
    """Translate an error that ONNX Runtime raised while it loaded `path`."""
    import onnxruntime as ort

    kind = OutOfMemoryError if means_out_of_memory(error) else BadFileError
    fix = ". The engine 'openvino' may run it" if "NOT_IMPLEMENTED" in str(error) else ""  # BF16 on a CPU
    return kind(f"ONNX Runtime {ort.__version__} cannot load {path}: {reason(error)}{fix}")


def _model(path: Path) -> str | bytes:
    """Return the path, or the file's content if the name is not UTF-8: ONNX Runtime cannot open such a path."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return path.read_bytes()
    return str(path)


def _spec(value: Any) -> TensorSpec:
    shape = tuple(size if isinstance(size, int) else None for size in value.shape)
    return TensorSpec(value.name, _DTYPES.get(value.type, value.type), shape)
