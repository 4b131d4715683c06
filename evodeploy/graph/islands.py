"""Which nodes of a graph stay in FP32 where the others are reduced: they decide selections, or normalise bytes."""

from __future__ import annotations

from collections.abc import Collection

from onnx import GraphProto, TensorProto

# Where the scores of a selection come from: the search upstream of TopK ends at these.
_SCORE_SOURCES = {"MatMul", "Gemm", "Conv", "LayerNormalization", "Attention", "Split"}

_NORMALISING = {"Cast", "Add", "Sub", "Mul", "Div"}


def scoring_nodes(graph: GraphProto, followed: Collection[str]) -> set[str]:
    """First outputs of all TopK and ArgMax nodes and of the nodes between the last matrix product and them.

    The way up leads through the values that are `followed`: not through positions, nor through shapes.
    """
    makers = {name: node for node in graph.node for name in node.output}
    scoring: set[str] = set()
    waiting = [node for node in graph.node if node.op_type in ("TopK", "ArgMax")]
    while waiting:
        node = waiting.pop()
        if node.output[0] not in scoring and node.op_type not in _SCORE_SOURCES:
            scoring.add(node.output[0])
            waiting += [makers[name] for name in node.input if name in makers and name in followed]
    return scoring


def normalising_nodes(graph: GraphProto) -> set[str]:
    """First outputs of the element-wise nodes through which images go that come as bytes."""
    reached = {value.name for value in graph.input if value.type.tensor_type.elem_type == TensorProto.UINT8}
    normalising: set[str] = set()
    for node in graph.node:
        if node.op_type in _NORMALISING and reached & set(node.input):
            reached.add(node.output[0])
            normalising.add(node.output[0])
    return normalising
