"""Networks that give NaN for some images."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper


def nan_where_dark(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model`, whose logits are NaN for images with a negative mean."""
    graph = model.graph
    for node in graph.node:
        node.output[:] = ["sound" if name == "logits" else name for name in node.output]
    graph.initializer.append(numpy_helper.from_array(np.int64([1, 2, 3]), "image_axes"))
    graph.initializer.append(numpy_helper.from_array(np.float32(0), "nothing"))
    graph.initializer.append(numpy_helper.from_array(np.int64([1]), "class_axis"))
    graph.node.extend(
        [
            helper.make_node("ReduceMean", ["images", "image_axes"], ["brightness"], keepdims=0),
            helper.make_node("Sqrt", ["brightness"], ["root"]),
            helper.make_node("Mul", ["root", "nothing"], ["nothing_or_nan"]),
            helper.make_node("Unsqueeze", ["nothing_or_nan", "class_axis"], ["column"]),
            helper.make_node("Add", ["sound", "column"], ["logits"]),
        ]
    )
    onnx.checker.check_model(model)
    return model
