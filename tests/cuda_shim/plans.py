"""Plans as the fake TensorRT reads them, with their records, and networks that are small and exact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from onnx import TensorProto, helper, numpy_helper

from evodeploy.engines.onnxruntime_engine import OnnxRuntimeEngine
from evodeploy.engines.tensorrt.sidecar import PlanRecord, Profile, write_sidecar
from evodeploy.files import sha256
from evodeploy.onnx_files import write_onnx


def write_plan(
    path: Path, onnx: Path, profiles: Any = ((1, 4, 16),), content: str | None = None, **changes: Any
) -> Path:
    """Write the plan `path` of the network `onnx`; `changes` are fields of its record."""
    path.write_text(content or json.dumps({"onnx": str(onnx), "profiles": profiles}))
    with OnnxRuntimeEngine(onnx) as engine:
        inputs, outputs, info = engine.inputs, engine.outputs, engine.info
    record: dict[str, Any] = {
        "runtime": "tensorrt", "runtime_version": "10.13.0.35", "targets": (), "precision": "fp32",
        "profiles": tuple(Profile(*profile) for profile in profiles), "inputs": inputs, "outputs": outputs,
        "model": info, "source": "small.onnx", "source_sha256": sha256(onnx), "plan_sha256": sha256(path),
        "plan_bytes": path.stat().st_size, "architecture": "sm89",
    }  # fmt: skip
    write_sidecar(PlanRecord(**{**record, **changes}), path)
    return path


def write_half(path: Path) -> Path:
    """A network of float16 whose outputs are float16 and int64."""
    shape = ["batch", 3, 4, 4]
    return _write(
        path,
        [helper.make_node("Add", ["images", "images"], ["scaled"]),
         helper.make_node("ArgMax", ["scaled"], ["best"], axis=1, keepdims=0)],
        [helper.make_tensor_value_info("images", TensorProto.FLOAT16, shape)],
        [helper.make_tensor_value_info("scaled", TensorProto.FLOAT16, shape),
         helper.make_tensor_value_info("best", TensorProto.INT64, ["batch", 4, 4])],
    )  # fmt: skip


def write_exact(path: Path) -> Path:
    """logits = 2 * images + 1, which every processor rounds alike."""
    shape = ["batch", 3, 64, 64]
    constants = [numpy_helper.from_array(_scalar(value), name) for value, name in ((2, "two"), (1, "one"))]
    return _write(
        path,
        [
            helper.make_node("Mul", ["images", "two"], ["double"]),
            helper.make_node("Add", ["double", "one"], ["logits"]),
        ],
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)],
        constants,
    )


def _scalar(value: float) -> Any:
    import numpy as np

    return np.float32(value)


def _write(path: Path, nodes: Any, inputs: Any, outputs: Any, constants: Any = ()) -> Path:
    graph = helper.make_graph(nodes, path.stem, inputs, outputs, constants)
    write_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path
