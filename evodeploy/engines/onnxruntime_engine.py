"""ONNX Runtime as an engine: on CUDA where its build and the machine have it, else on the CPU."""

from __future__ import annotations

from pathlib import Path

from evodeploy.engines.base import Array, Engine, batch_range
from evodeploy.errors import BadFileError, UnavailableError, needs
from evodeploy.files import check_input
from evodeploy.onnx_files import parse_info
from evodeploy.specs import METADATA_KEY, EngineOptions, TensorSpec

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(uint8)": "uint8",
}


class OnnxRuntimeEngine(Engine):
    """Runs an ONNX file."""

    name = "onnxruntime"

    def __init__(self, path: Path, options: EngineOptions | None = None) -> None:
        options = options or EngineOptions()
        check_input(path, "an ONNX model")
        with needs("cpu"):
            import onnxruntime as ort

        session = ort.SessionOptions()
        session.log_severity_level = 3
        session.add_session_config_entry("session.force_spinning_stop", "1")  # idle workers leave the cores to others
        if options.threads:
            session.intra_op_num_threads = options.threads
        self.device = options.device or ("cuda" if "CUDAExecutionProvider" in ort.get_available_providers() else "cpu")
        providers = ["CUDAExecutionProvider"] if self.device == "cuda" else []
        try:
            self._session = ort.InferenceSession(str(path), session, providers=[*providers, "CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises a type of its own for each status code
            reason = str(error).strip().split("\n")[0][:300]
            raise BadFileError(f"ONNX Runtime {ort.__version__} cannot load {path}: {reason}") from error
        active = self._session.get_providers()
        if options.device == "cuda" and "CUDAExecutionProvider" not in active:
            raise UnavailableError(
                "ONNX Runtime has no working CUDA here: pip install 'evodeploy[gpu]', or use the CPU"
            )
        self.device = "cuda" if "CUDAExecutionProvider" in active else "cpu"
        self.inputs = tuple(_spec(value) for value in self._session.get_inputs())
        self.outputs = tuple(_spec(value) for value in self._session.get_outputs())
        self.batch = batch_range(self.inputs)
        self.info = parse_info(self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY))

    def _run(self, images: Array) -> dict[str, Array]:
        values = self._session.run(None, {self.inputs[0].name: images})
        return {spec.name: value for spec, value in zip(self.outputs, values, strict=True)}

    def _close(self) -> None:
        del self._session


def _spec(value: object) -> TensorSpec:
    shape = tuple(size if isinstance(size, int) else None for size in value.shape)  # type: ignore[attr-defined]
    dtype = value.type  # type: ignore[attr-defined]
    return TensorSpec(value.name, _DTYPES.get(dtype, dtype), shape)  # type: ignore[attr-defined]
