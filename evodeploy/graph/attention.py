"""Finding the attentions of an ONNX graph, and making their keys as wide as their values: TensorRT fuses no others.

An attention is an Attention node, or MatMul, Softmax and MatMul, which TensorRT fuses equally well in FP16, also with a
bias before Softmax.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from evodeploy.graph.changed import Changed
from evodeploy.graph.nodes import users_of
from evodeploy.onnx_files import opset_of

_PADS_AS_INPUT = 11  # the first opset in which Pad takes its widths as an input


@dataclass(frozen=True)
class Operand:
    """An input of a node: queries or keys, with channels along `axis`."""

    node: NodeProto
    slot: int
    axis: int

    @property
    def name(self) -> str:
        """The value's name."""
        return str(self.node.input[self.slot])


@dataclass(frozen=True)
class Attention:
    """The operands of one attention. Queries and keys are given as near to their source as they can be widened."""

    query: Operand
    key: Operand
    value: str


def attentions(graph: GraphProto) -> Iterator[Attention]:
    """Yield all attentions over 4-dimensional queries, keys and values."""
    makers = {name: node for node in graph.node for name in node.output}
    users = users_of(graph.node)

    def upstream(operand: Operand) -> Operand:
        maker = makers.get(operand.name)
        if maker is None or len(users[operand.name]) > 1:
            return operand
        if maker.op_type == "Transpose":
            (perm,) = (attribute.ints for attribute in maker.attribute if attribute.name == "perm")
            return upstream(Operand(maker, 0, perm[operand.axis]))
        if maker.op_type == "Mul" and maker.input[1] not in makers:  # a product with a constant keeps zeros
            return upstream(Operand(maker, 0, operand.axis))
        return operand

    for node in graph.node:
        if node.op_type == "Attention":
            yield Attention(Operand(node, 0, 3), Operand(node, 1, 3), node.input[2])
        elif node.op_type == "Softmax":
            logits, after = makers.get(node.input[0]), users[node.output[0]]
            if logits is not None and logits.op_type == "Add":  # the bias of merged tokens
                logits = makers.get(logits.input[0])
            if logits is not None and logits.op_type == "MatMul" and [user.op_type for user in after] == ["MatMul"]:
                query, key = upstream(Operand(logits, 0, 3)), upstream(Operand(logits, 1, 2))
                yield Attention(query, key, after[0].input[1])


def with_wide_keys(model: ModelProto) -> Changed:
    """Return `model` with zeros after queries and keys that are narrower than their values; counts attentions.

    Zeros add nothing to the products of queries and keys, so the result does not change. An engine writes them in the
    step that lays out the keys anyway.
    """
    if opset_of(model) < _PADS_AS_INPUT:
        return Changed(model, 0)
    wide = ModelProto()
    wide.CopyFrom(model)
    shapes = _shapes(model)
    before: dict[str, NodeProto] = {}  # the first output of a node to the Pad that it needs
    found = [(attention, _missing(attention, shapes)) for attention in attentions(wide.graph)]
    narrow = [(attention, missing) for attention, missing in found if missing > 0]
    for i, (attention, missing) in enumerate(narrow):
        for part, operand in (("query", attention.query), ("key", attention.key)):
            pads = [0] * 8
            pads[4 + operand.axis] = missing
            name = f"wide_{part}_{i}"
            wide.graph.initializer.append(numpy_helper.from_array(np.array(pads, np.int64), f"{name}_pads"))
            before[operand.node.output[0] + part] = helper.make_node(
                "Pad", [operand.name, f"{name}_pads"], [name], name
            )
            operand.node.input[operand.slot] = name
    if not narrow:
        return Changed(model, 0)
    nodes: list[NodeProto] = []
    for node in wide.graph.node:
        nodes += [before[key] for part in ("query", "key") if (key := node.output[0] + part) in before]
        nodes.append(node)
    del wide.graph.node[:], wide.graph.value_info[:]  # the recorded shapes are those of narrow keys
    wide.graph.node.extend(nodes)
    onnx.checker.check_model(wide, full_check=True)
    return Changed(wide, len(narrow))


def _missing(attention: Attention, shapes: dict[str, list[int]]) -> int:
    """Return how many channels narrower queries and keys are than the values; 0 if a size is unknown."""
    query, key, value = (shapes.get(name, []) for name in (attention.query.name, attention.key.name, attention.value))
    if not len(query) == len(key) == len(value) == 4:
        return 0
    width = query[attention.query.axis]
    return value[3] - width if width == key[attention.key.axis] > 0 else 0


def _shapes(model: ModelProto) -> dict[str, list[int]]:
    """Return the sizes of all values with known rank; an unknown size is 0."""
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    return {
        value.name: [size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.input, *graph.output)
    }
