"""The nodes that stay in FP32 when the others are reduced, because they decide selections or normalise images."""

from __future__ import annotations

from collections.abc import Collection

from onnx import GraphProto, TensorProto

# The operators that compute the scores of a selection: the search upstream of TopK ends at these.
_SCORE_SOURCES = {"MatMul", "Gemm", "Conv", "LayerNormalization", "Attention", "Split"}

_NORMALISING = {"Cast", "Add", "Sub", "Mul", "Div"}


def scoring_nodes(graph: GraphProto, followed: Collection[str]) -> set[str]:
    """Return the first outputs of all TopK and ArgMax nodes, and of the nodes between the last matrix product and them.

    The search upstream follows only the values in `followed`, so neither positions nor shapes.
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
    """Return the first outputs of the element-wise nodes that normalise uint8 images."""
    reached = {value.name for value in graph.input if value.type.tensor_type.elem_type == TensorProto.UINT8}
    normalising: set[str] = set()
    for node in graph.node:
        if node.op_type in _NORMALISING and reached & set(node.input):
            reached.add(node.output[0])
            normalising.add(node.output[0])
    return normalising
