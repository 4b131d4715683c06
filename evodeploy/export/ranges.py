"""How large the activations of an ONNX model become, measured on images: what FP16 cannot hold is known beforehand."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from evodeploy.engines.base import Array
from evodeploy.engines.onnxruntime_engine import OnnxRuntimeEngine
from evodeploy.onnx_files import write_onnx
from evodeploy.specs import EngineOptions


def activation_ranges(model: onnx.ModelProto, images: Array) -> dict[str, float]:
    """The largest magnitude of every float32 value that `model` computes on `images`, by the value's name.

    Each value's magnitude is reduced inside the graph, so that memory does not grow with their number.
    """
    inferred = onnx.shape_inference.infer_shapes(model)
    floats = [
        value.name
        for value in (*inferred.graph.value_info, *inferred.graph.output)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT
    ]
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    for name in floats:
        probe.graph.node.append(helper.make_node("Abs", [name], [f"{name}_magnitude"]))
        probe.graph.node.append(helper.make_node("ReduceMax", [f"{name}_magnitude"], [f"{name}_range"], keepdims=0))
        probe.graph.output.append(helper.make_tensor_value_info(f"{name}_range", TensorProto.FLOAT, ()))
    with tempfile.TemporaryDirectory(prefix="evodeploy-") as folder:
        path = Path(folder, "ranges.onnx")
        write_onnx(probe, path)
        with OnnxRuntimeEngine(path, EngineOptions(device="cpu")) as engine:
            return {name.removesuffix("_range"): float(value) for name, value in engine.run(images).items()}
