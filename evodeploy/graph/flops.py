"""The floating-point operations of an ONNX graph's matrix products, computed from shapes alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from evodeploy.errors import needs
from evodeploy.graph.fixed_keep import with_keep
from evodeploy.onnx_files import fed_inputs

if TYPE_CHECKING:
    import onnx

Shape = tuple[int, ...]

LARGEST_KEPT = 1024  # elements of an initializer whose values may determine shapes; larger ones are weights
OPAQUE = {"Einsum", "If", "Loop", "Scan"}  # the shapes of their inputs and outputs do not determine their work


def flops_of_onnx(model: onnx.ModelProto, keep: Sequence[int] = ()) -> float | None:
    """Count the operations per image in matrix products, convolutions and attentions; a multiply-add counts as two.

    For an elastic model, the stages keep `keep` tokens. The counted operations are those that the peak rate of matrix
    products limits; the rest of a vision transformer is one or two per cent. Returns None if a shape cannot be
    inferred, for example for an elastic model without `keep`, or if a node's work cannot be computed.
    """
    with needs("onnx"):
        from onnx import shape_inference

    skeleton = _skeleton(model)
    if keep:
        skeleton = with_keep(skeleton, keep)
    graph = shape_inference.infer_shapes(skeleton, data_prop=True).graph
    shapes = {value.name: _shape(value) for value in (*graph.input, *graph.value_info, *graph.output)}
    shapes |= {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    total = 0
    for node in graph.node:
        if node.domain not in ("", "ai.onnx") or node.op_type in OPAQUE:
            return None
        if node.op_type in _COUNTS:
            known = [shapes.get(name) for name in (node.output[0], *filter(None, node.input))]
            output, *inputs = [shape or () for shape in known]
            if None in known:
                return None
            total += _COUNTS[node.op_type](node, inputs, output)
    return total / (_shape(graph.input[0]) or (1,))[0]


def _skeleton(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return `model`, a dynamic batch set to 1, with its weights as inputs so that shape inference copies none."""
    from onnx import ModelProto, helper

    skeleton = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    graph = skeleton.graph
    graph.name = model.graph.name
    graph.node.extend(model.graph.node)
    graph.output.extend(helper.make_empty_tensor_value_info(value.name) for value in model.graph.output)
    graph.input.extend(fed_inputs(model))
    for value in graph.input:
        batch = value.type.tensor_type.shape.dim[0]
        batch.dim_value = batch.dim_value or 1
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= LARGEST_KEPT:
            graph.initializer.append(tensor)
        else:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    return skeleton


def _shape(value: onnx.ValueInfoProto) -> Shape | None:
    tensor = value.type.tensor_type
    sizes = [size.dim_value if size.HasField("dim_value") else None for size in tensor.shape.dim]
    if not tensor.HasField("shape") or None in sizes:
        return None
    return tuple(size for size in sizes if size is not None)


def _matmul(node: onnx.NodeProto, inputs: list[Shape], output: Shape) -> int:
    return 2 * math.prod(output) * inputs[0][-1]


def _gemm(node: onnx.NodeProto, inputs: list[Shape], output: Shape) -> int:
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return 2 * math.prod(output) * inputs[0][0 if transposed else 1]


def _conv(node: onnx.NodeProto, inputs: list[Shape], output: Shape) -> int:
    return 2 * math.prod(output) * math.prod(inputs[1][1:])


def _quantized_conv(node: onnx.NodeProto, inputs: list[Shape], output: Shape) -> int:
    return 2 * math.prod(output) * math.prod(inputs[3][1:])


def _attention(node: onnx.NodeProto, inputs: list[Shape], output: Shape) -> int:
    """Count queries by keys, and weights by values: (batch, tokens, width) or (batch, heads, tokens, width)."""
    return 2 * inputs[1][-2] * (math.prod(inputs[0]) + math.prod(output))


_COUNTS: dict[str, Callable[[onnx.NodeProto, list[Shape], Shape], int]] = {
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "QLinearMatMul": _matmul,
    "Gemm": _gemm,
    "Conv": _conv,
    "ConvInteger": _conv,
    "QLinearConv": _quantized_conv,
    "Attention": _attention,
}
