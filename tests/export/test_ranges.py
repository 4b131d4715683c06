from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from evodeploy.export.ranges import activation_ranges


def test_every_value_has_the_largest_magnitude_it_took():
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "w"], ["scaled"]), helper.make_node("Relu", ["scaled"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("batch", 2))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("batch", 2))],
        [numpy_helper.from_array(np.float32([10, 100]), "w")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    assert activation_ranges(model, np.float32([[1, -2], [3, 1]])) == {"scaled": 200.0, "y": 100.0}
    assert [output.name for output in model.graph.output] == ["y"]
