"""OpenVINO as an engine, on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from evodeploy.engines.base import Array, Engine, batch_range, check_interface
from evodeploy.errors import BadFileError, UnavailableError, UsageError, needs
from evodeploy.files import check_input
from evodeploy.onnx_files import parse_info
from evodeploy.specs import METADATA_KEY, EngineOptions, TensorSpec
from evodeploy.text import reason


class OpenVinoEngine(Engine):
    """Runs an ONNX file on the CPU, in float32 unless the options name another precision."""

    name = "openvino"

    def __init__(self, path: Path, options: EngineOptions | None = None) -> None:
        options = options or EngineOptions()
        if options.device not in (None, "cpu"):
            raise UsageError(f"the engine 'openvino' runs on the CPU only, got device {options.device}")
        check_input(path, "an ONNX model")
        with needs("cpu"):
            import openvino as ov

        # OpenVINO would choose bfloat16 by itself where the processor has it.
        hint = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}[options.precision or "fp32"]
        properties: dict[str, Any] = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}
        if options.threads:
            properties["INFERENCE_NUM_THREADS"] = options.threads
            properties["ENABLE_CPU_PINNING"] = False  # or two processes with a thread each share the first core
        try:
            model = ov.Core().read_model(path)
            compiled = ov.Core().compile_model(model, "CPU", properties)
            self._request = compiled.create_infer_request()
        except Exception as error:  # OpenVINO raises RuntimeError and its own subclasses for any reason
            raise BadFileError(f"OpenVINO {ov.__version__} cannot load {path}: {reason(error, -1)}") from error
        actual = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        if actual != hint:
            raise UnavailableError(f"OpenVINO computes in {actual} on this processor where {hint} is asked for")
        self.inputs = tuple(_spec(port) for port in model.inputs)
        self.outputs = tuple(_spec(port) for port in model.outputs)
        check_interface(path, self.inputs, self.outputs)
        self.batch = batch_range(self.inputs)
        key = ["framework", METADATA_KEY]
        self.info = parse_info(model.get_rt_info(key).value, path) if model.has_rt_info(key) else None

    def _run(self, images: Array) -> dict[str, Array]:
        self._request.infer([images], share_inputs=True)
        return {spec.name: np.array(self._request.get_tensor(spec.name).data) for spec in self.outputs}

    def _close(self) -> None:
        del self._request


def _spec(port: Any) -> TensorSpec:
    shape = tuple(None if size.is_dynamic else size.get_length() for size in port.partial_shape)
    return TensorSpec(port.any_name, np.dtype(port.element_type.to_dtype()).name, shape)
