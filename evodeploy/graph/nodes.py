"""The nodes of an ONNX graph: their names, the operators that compute nothing, and the users of each value."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import NodeProto

# Operators that only move numbers.
MOVING = {
    "Concat", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Reshape", "Slice", "Split",
    "Squeeze", "Transpose", "Unsqueeze",
}  # fmt: skip


def node_name(node: NodeProto) -> str:
    """Return the name of `node`, or of its first output if it has none."""
    return str(node.name or node.output[0])


def users_of(nodes: Iterable[NodeProto]) -> Mapping[str, list[NodeProto]]:
    """Map each value to those of `nodes` that read it, in order; to an empty list if none does."""
    users: dict[str, list[NodeProto]] = defaultdict(list)
    for node in nodes:
        for name in node.input:
            users[name].append(node)
    return users
