"""The linear layers of an ONNX graph: products of a computed value and a weight matrix."""

from __future__ import annotations

from dataclasses import dataclass

from onnx import GraphProto, NodeProto, TensorProto


@dataclass(frozen=True)
class Linear:
    """A MatMul or Gemm node and its `weight`, with output channels along `axis` and input channels along the other."""

    node: NodeProto
    weight: TensorProto
    axis: int

    @property
    def input(self) -> str:
        """The name of the value that is multiplied."""
        return str(self.node.input[0])


def linear_layers(graph: GraphProto) -> list[Linear]:
    """Return all linear layers of `graph`, in its order."""
    weights = {tensor.name: tensor for tensor in graph.initializer if len(tensor.dims) == 2}
    return [
        Linear(node, weights[node.input[1]], 0 if _transposed(node) else 1)
        for node in graph.node
        if node.op_type in ("MatMul", "Gemm") and node.input[1] in weights and node.input[0] not in weights
    ]


def _transposed(node: NodeProto) -> bool:
    return any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
