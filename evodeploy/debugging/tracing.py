"""From measured values to nodes: the error that each node adds, and the error that it inherits."""

from __future__ import annotations

from onnx import TensorProto

from evodeploy.debugging.cutting import Graph
from evodeploy.debugging.probing import Probed
from evodeploy.debugging.report import NodeError
from evodeploy.graph.nodes import node_name
from evodeploy.graph.parts import parts_of


def node_errors(reference: Graph, found: Probed) -> tuple[NodeError, ...]:
    """Return the errors of the nodes of `reference` whose float outputs were measured, in its order."""
    errors: dict[str, float] = {}
    parts = parts_of(reference.written)
    nodes = []
    for node in reference.written.node:
        inherited = max((errors.get(name, 0.0) for name in node.input), default=0.0)
        measured = [found.values[name] for name in node.output if name in found.values]
        seen = [value for value in measured if value.elements]
        errors.update(dict.fromkeys(node.output, inherited))  # unless measured, see below
        for name in node.output:
            if name in found.values and found.values[name].elements:
                errors[name] = found.values[name].relative(found.values[name].difference)
        if not seen:
            continue
        part = parts[node_name(node)]
        elements = sum(value.elements for value in seen)
        squares = sum(value.squares for value in seen)
        nodes.append(
            NodeError(
                name=node_name(node),
                operator=node.op_type,
                block=part.block or part.kind,
                error=max(value.relative(value.difference) for value in seen),
                inherited=inherited,
                own=max(value.relative(value.own) for value in seen),
                rms=(sum(value.square_errors for value in seen) / (squares or 1.0)) ** 0.5,
                largest=max(value.largest for value in seen),
                beyond=sum(value.beyond for value in seen) / elements,
                flushed=sum(value.flushed for value in seen) / elements,
            )
        )
    return tuple(nodes)


def unshared(reference: Graph, found: Probed) -> int:
    """Count the nodes of `reference` that compute floats, none of which was measured."""
    floats = [
        [name for name in node.output if reference.types.get(name) == TensorProto.FLOAT]
        for node in reference.written.node
    ]
    return sum(
        bool(names) and not any(name in found.values and found.values[name].elements for name in names)
        for names in floats
    )


def suspects(reference: Graph, nodes: tuple[NodeError, ...]) -> list[str]:
    """Return the names of `nodes`, the likeliest causes first.

    A node's weight is its own error, or half the weight of a node that reads its output if that is larger: if a node is
    sensitive to its input, the node that computes the input may have to stay in FP32.
    """
    own = {node.name: min(node.own, 1e6) for node in nodes}
    reading: dict[str, float] = {}  # the largest weight of the nodes that read each value
    weight: dict[str, float] = {}
    for node in reversed(reference.nodes):
        name = node_name(node)
        behind = max((reading.get(output, 0.0) for output in node.output), default=0.0)
        weight[name] = max(own.get(name, 0.0), behind / 2)
        for value in node.input:
            reading[value] = max(reading.get(value, 0.0), weight[name])
    return sorted(own, key=lambda name: -weight[name])
