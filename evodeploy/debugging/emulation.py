"""An ONNX model with explicit rounding: computed in FP32, with each value rounded to the type that the file gives it.

ONNX Runtime has few kernels for FP16 on the CPU and none for BF16. It computes FP16 in FP32 and omits the rounding
between two nodes, so that a value of 90000 passes through FP16, whose largest is 65504. Here each rounding is a
separate node, with the same result on every processor. Rounding inside the sums of a GPU's products is not emulated.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from evodeploy.debugging.cutting import Graph

REDUCED = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


def emulated(model: ModelProto) -> Graph:
    """Return `model` in FP32, with FP16 and BF16 only in the rounding of values; its inputs and outputs are FP32.

    Values keep their names. A model without these types is not changed.
    """
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    if not set(types.values()).intersection(REDUCED):
        return Graph(model)
    result = ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    del graph.node[:], graph.value_info[:]
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type in REDUCED:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for tensor in graph.initializer:
        if tensor.data_type in REDUCED:
            tensor.CopyFrom(_single(tensor))
    made = {name for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        graph.node.extend(_rounding(node, types))
    return Graph(result, {name: kind for name, kind in types.items() if kind in REDUCED and name in made}, model)


def _rounding(node: NodeProto, types: dict[str, int]) -> list[NodeProto]:
    """Return `node` in FP32, followed by two casts for each output that has a reduced type in the file."""
    copy = NodeProto()
    copy.CopyFrom(node)
    nodes = [copy]
    for attribute in copy.attribute:
        if attribute.name in ("to", "dtype") and attribute.i in REDUCED:
            attribute.i = TensorProto.FLOAT
        elif attribute.HasField("t") and attribute.t.data_type in REDUCED:
            attribute.t.CopyFrom(_single(attribute.t))
    for index, name in enumerate(node.output):
        if name and types.get(name) in REDUCED:
            exact, low = f"{name}_exact", f"{name}_low"
            copy.output[index] = exact
            nodes.append(helper.make_node("Cast", [exact], [low], f"{low}_cast", to=types[name]))
            nodes.append(helper.make_node("Cast", [low], [name], f"{name}_cast", to=TensorProto.FLOAT))
    return nodes


def _single(tensor: TensorProto) -> TensorProto:
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)
