"""The nodes that stay in FP32 on request, given by patterns of names or operator types."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from evodeploy.errors import UsageError
from evodeploy.graph.nodes import MOVING, node_name
from evodeploy.text import brief


def kept_nodes(graph: GraphProto, patterns: Sequence[str]) -> set[str]:
    """Return the first outputs of the nodes whose name or operator type matches one of `patterns` (fnmatch).

    A full name always matches itself, whatever characters it has. Raises UsageError for a pattern that no node matches.
    """
    kept: set[str] = set()
    for pattern in patterns:
        found = {node.output[0] for node in graph.node if _matches(node, pattern)}
        if not found:
            raise UsageError(_no_match(graph, pattern))
        kept |= found
    return kept


def joined(graph: GraphProto, kept: Collection[str], floats: Collection[str]) -> set[str]:
    """Return the first outputs of the nodes that only move numbers between `kept` nodes, also given by first outputs.

    If these stay in FP32 too, no casts are needed, and numbers that FP16 cannot hold pass through. `floats` are the
    names of the values that could be reduced. Inputs and outputs of the graph are FP32 and count as kept.
    """
    makers = {name: node for node in graph.node for name in node.output}
    exact = set(kept)
    for node in graph.node:  # downwards: nodes whose numbers all come from FP32
        sources = [makers[name] for name in node.input if name in floats and name in makers]
        if node.op_type in MOVING and all(maker.output[0] in exact for maker in sources):
            exact.add(node.output[0])
    read = {value.name for value in graph.output}
    wanted: set[str] = set()
    for node in reversed(graph.node):  # upwards: those of them that lead to FP32
        if node.output[0] in kept:
            read.update(node.input)
        elif node.output[0] in exact and read.intersection(node.output):
            wanted.add(node.output[0])
            read.update(node.input)
    return wanted


def has_fp32_products(model: ModelProto) -> bool:
    """Return whether `model` multiplies matrices in FP32, for which some GPUs have no kernels."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*inferred.value_info, *inferred.output)}
    products = (node for node in model.graph.node if node.op_type in ("Attention", "Conv", "Gemm", "MatMul"))
    return any(types.get(node.output[0]) == TensorProto.FLOAT for node in products)


def _matches(node: NodeProto, pattern: str) -> bool:
    name = node_name(node)
    return name == pattern or fnmatchcase(name, pattern) or fnmatchcase(node.op_type, pattern)


def _no_match(graph: GraphProto, pattern: str) -> str:
    known = sorted({node_name(node) for node in graph.node} | {node.op_type for node in graph.node})
    close = difflib.get_close_matches(pattern, known, 3, 0.4) or known[:3]
    return (
        f"no node of the ONNX has the name or operator type '{brief(pattern, 60)}': --keep-fp32 takes "
        f"names or patterns of them, such as {', '.join(brief(name, 60) for name in close)}"
    )
