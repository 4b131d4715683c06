"""The nodes of an ONNX graph: what each is called, which compute nothing, and which read a value."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import NodeProto

# Operators that move numbers and compute none.
MOVING = {
    "Concat", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Reshape", "Slice", "Split",
    "Squeeze", "Transpose", "Unsqueeze",
}  # fmt: skip


def node_name(node: NodeProto) -> str:
    """Return the name of `node`, or of its first output where it has none."""
    return str(node.name or node.output[0])


def users_of(nodes: Iterable[NodeProto]) -> Mapping[str, list[NodeProto]]:
    """Return which of `nodes` read each value, in their order: an empty list for a value that none reads."""
    users: dict[str, list[NodeProto]] = defaultdict(list)
    for node in nodes:
        for name in node.input:
            users[name].append(node)
    return users
