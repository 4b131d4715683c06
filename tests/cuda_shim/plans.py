"""Plans as the fake TensorRT reads them, with their records, and networks that are small and exact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from evodeploy.elastic import ElasticStage
from evodeploy.engines.tensorrt.sidecar import PlanRecord, Profile, keep_profile, write_sidecar
from evodeploy.files import sha256
from evodeploy.onnx_files import info_of, input_spec, output_specs, read_onnx, set_info, write_onnx
from evodeploy.specs import ModelInfo


def write_plan(
    path: Path, onnx: Path, profiles: Any = ((1, 4, 16),), content: str | None = None, **changes: Any
) -> Path:
    """Write the plan `path` of the network `onnx`; `changes` are fields of its record."""
    model = read_onnx(onnx)
    info, outputs = info_of(model), output_specs(model)
    keep = keep_profile(info)
    values = {"keep": [[keep.min, keep.opt, keep.max]] * len(profiles)} if keep else {}
    path.write_text(content or json.dumps({"onnx": str(onnx), "profiles": profiles, **values}))
    inputs = info.inputs if info else (input_spec(model),)
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
    constants = [numpy_helper.from_array(np.array(value, np.float32), name) for value, name in ((2, "two"), (1, "one"))]
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


def write_elastic(path: Path) -> Path:
    """Of the first 64 pixels, as if they were tokens, two stages keep the largest: 6 to 64, by default 32 and 16.

    The logits are the sums of what each keeps; `selected_0` is as long as the first `keep` says.
    """
    numbers = {"axis": [1], "from": [0], "to": [64], "first": [0], "second": [1]}
    constants = [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in numbers.items()]
    node = helper.make_node
    _write(
        path,
        [
            node("Flatten", ["images"], ["pixels"]),
            node("Slice", ["pixels", "from", "to", "axis"], ["tokens"]),
            node("Gather", ["keep", "first"], ["k_0"]),
            node("Gather", ["keep", "second"], ["k_1"]),
            node("TopK", ["tokens", "k_0"], ["values_0", "selected_0"]),
            node("TopK", ["tokens", "k_1"], ["values_1", "selected_1"]),
            node("ReduceSum", ["values_0", "axis"], ["sum_0"]),
            node("ReduceSum", ["values_1", "axis"], ["sum_1"]),
            node("Concat", ["sum_0", "sum_1"], ["logits"], axis=1),
        ],
        [
            helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 64, 64]),
            helper.make_tensor_value_info("keep", TensorProto.INT64, [2]),
        ],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2]),
            helper.make_tensor_value_info("selected_0", TensorProto.INT64, ["batch", "kept"]),
        ],
        constants,
        ModelInfo(
            "elastic_test", 64, 8, 2, "stage", (0.5, 0.25), elastic=(ElasticStage(64, 6, 64), ElasticStage(64, 6, 64))
        ),
    )
    return path


def _write(
    path: Path, nodes: Any, inputs: Any, outputs: Any, constants: Any = (), info: ModelInfo | None = None
) -> Path:
    graph = helper.make_graph(nodes, path.stem, inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    if info is not None:
        set_info(model, info)
    write_onnx(model, path)
    return path
