"""Plans as the fake TensorRT reads them, with their records, and networks that are small and exact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from graphs import model_of, value
from onnx import TensorProto, helper

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
        [value("images", shape, TensorProto.FLOAT16)],
        [value("scaled", shape, TensorProto.FLOAT16), value("best", ["batch", 4, 4], TensorProto.INT64)],
    )  # fmt: skip


def write_exact(path: Path) -> Path:
    """logits = 2 * images + 1, which every processor rounds alike."""
    shape = ["batch", 3, 64, 64]
    nodes = [
        helper.make_node("Mul", ["images", "two"], ["double"]),
        helper.make_node("Add", ["double", "one"], ["logits"]),
    ]
    weights = {"two": np.float32(2), "one": np.float32(1)}
    return _write(path, nodes, [value("images", shape)], [value("logits", shape)], weights)


def write_elastic(path: Path) -> Path:
    """Of the first 64 pixels, as if they were tokens, two stages keep the largest: 6 to 64, by default 32 and 16.

    The logits are the sums of what each keeps; `selected_0` is as long as the first `keep` says.
    """
    numbers = {"axis": [1], "from": [0], "to": [64], "first": [0], "second": [1]}
    node = helper.make_node
    return _write(
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
        [value("images", ["batch", 3, 64, 64]), value("keep", [2], TensorProto.INT64)],
        [value("logits", ["batch", 2]), value("selected_0", ["batch", "kept"], TensorProto.INT64)],
        {name: np.array(given, np.int64) for name, given in numbers.items()},
        ModelInfo(
            "elastic_test", 64, 8, 2, "stage", (0.5, 0.25), elastic=(ElasticStage(64, 6, 64), ElasticStage(64, 6, 64))
        ),
    )


def _write(
    path: Path, nodes: Any, inputs: Any, outputs: Any, weights: Any = None, info: ModelInfo | None = None
) -> Path:
    model = model_of(nodes, inputs, outputs, weights, opset=18)
    if info is not None:
        set_info(model, info)
    write_onnx(model, path)
    return path
