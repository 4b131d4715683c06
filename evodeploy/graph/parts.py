"""The module, the block and the kind of work that each node of a graph belongs to, inferred from names and operators.

Names such as `blocks.3.attn.qkv/MatMul`, which `exporter.node_names` writes, and those of other exporters, such as
`/encoder/layer.3/attention/self/query/MatMul`, contain the module. Nodes without a module are classified by the nodes
around them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from evodeploy.graph.nodes import MOVING, node_name, users_of

if TYPE_CHECKING:
    import onnx

Kind = Literal[
    "attention",
    "MLP",
    "merging",
    "selection",
    "embedding",
    "head",
    "normalisation",
    "residual",
    "other",
    "data movement",
]
KINDS: tuple[Kind, ...] = get_args(Kind)  # a fused node has the first of these that one of its parts has

_BLOCK = re.compile(
    r".*?(?:^|\.)(?:blocks?|layers?|resblocks|stages?|encoder_layer|h)\d*[._]\d+(?=\.|$)(?:\.(?:sub|down)sample)?"
)
_ATTENTION = re.compile(r"att(e)?n", re.IGNORECASE)
_MLP = re.compile(r"mlp|ffn|feed_?forward|intermediate|^output$|^fc\d$", re.IGNORECASE)
_NORM = re.compile(r"norm|^(?:ln|bn)(?:_?\d+)?(?:_\w+)?$", re.IGNORECASE)
_EMBEDDING = re.compile(r"embed|^stem|^conv_proj$", re.IGNORECASE)
_HEAD = re.compile(r"^heads?$|^head_dist$|classifier|^pooler$|^fc$", re.IGNORECASE)
_NORMS = re.compile(r"(?:Layer|Group|Batch|Instance|RMS)Norm|^MVN$", re.IGNORECASE)
_ATTENTIONS = re.compile(r"Attention|^Softmax$", re.IGNORECASE)
_NUMBER = re.compile(r"_\d+$")
_CONVERTING = {"Cast", "DequantizeLinear", "Identity", "QuantizeLinear"}  # belong to the nodes that they convert for
# Includes conversions, operators that fill in numbers, such as Pad, and the runtimes' own names for data movement.
_DATA_MOVEMENT = MOVING | _CONVERTING | {
    "Convert", "Pad", "Reorder", "ReorderInput", "ReorderOutput", "ScatterElements", "ScatterND", "Shape",
    "StridedSlice", "Tile", "VariadicSplit",
}  # fmt: skip


@dataclass(frozen=True)
class Part:
    """What a node is part of. `module`, and `block`, its first names, are empty if the node's name has none."""

    module: str
    block: str
    kind: Kind


def part_of(name: str, operator: str = "") -> Part:
    """Return what a node is part of, from its name and `operator` alone; by default the operator in the name."""
    module, last = _split(name)
    operator = operator or _NUMBER.sub("", last)
    block = _block(module)
    return Part(module, block, _kind(module, block, operator))


def parts_of(graph: onnx.GraphProto) -> dict[str, Part]:
    """Return what each node of `graph` is part of, by its `node_name`, which must be unique.

    If the graph has blocks, a node without a module belongs to the embedding before the first block, to the head after
    the last, and to the selection in between if the graph selects tokens. If tokens are merged, only nodes that serve
    TopK alone belong to the selection, the others to merging. Nodes that depend on no image also belong to the
    selection: they decide how many tokens are kept.
    """
    nodes = list(graph.node)
    users = users_of(nodes)
    parts: dict[str, Part] = {}
    for node in nodes:
        parts[node_name(node)] = part_of(node_name(node), node.op_type)
    inside = [index for index, node in enumerate(nodes) if parts[node_name(node)].block]
    if not inside:
        return parts
    first, last = inside[0], inside[-1]
    between = {node.op_type for node in nodes[first:last] if not parts[node_name(node)].module}
    selecting, merging = "TopK" in between, "ArgMax" in between
    serving = _serving(nodes, users) if merging else set()
    seen = {value.name for value in list(graph.input)[:1]}
    for index, node in enumerate(nodes):
        name, from_images = node_name(node), not seen.isdisjoint(node.input)
        seen.update(node.output if from_images else ())
        if parts[name].module:
            continue
        if node.op_type in _CONVERTING:
            parts[name] = _converting(node, nodes, users, parts)
        elif selecting and not from_images:
            parts[name] = Part("", "", "selection")
        elif index < first or index > last:
            parts[name] = Part("", "", "embedding" if index < first else "head")
        elif selecting:
            parts[name] = Part("", "", "merging" if merging and name not in serving else "selection")
    return parts


def main_part(parts: Iterable[Part]) -> Part | None:
    """Return the part that a node fused from `parts` counts as: the first in the order of `KINDS`; None without any."""
    return min(parts, key=lambda part: KINDS.index(part.kind), default=None)


def _split(name: str) -> tuple[str, str]:
    """Return the module and the rest of a node's name: `blocks.0.attn` for `/blocks/blocks.0/attn/MatMul`."""
    *scopes, last = name.strip("/").split("/")
    path: list[str] = []
    for scope in scopes:
        if path and scope.startswith(f"{path[-1]}."):
            path.pop()
        path.append(scope)
    return ".".join(path), last


def _block(module: str) -> str:
    """Return the block that contains `module`, with the blocks around it; empty if there is none."""
    end = 0
    for match in _BLOCK.finditer(module):
        if any(word.search(match[0]) for word in (_ATTENTION, _MLP)):  # numbered layers inside a block's module
            break
        end = match.end()
    return module[:end]


def _kind(module: str, block: str, operator: str) -> Kind:
    words = module.split(".") if module else []
    if _NORMS.search(operator) or any(_NORM.search(word) for word in words[-1:]):
        return "normalisation"
    if operator in _DATA_MOVEMENT and (block or not words):
        return "data movement"
    if any(_ATTENTION.search(word) for word in words) or (not words and _ATTENTIONS.search(operator)):
        return "attention"
    if any(_EMBEDDING.search(word) for word in words):
        return "embedding"
    if not block and any(_HEAD.search(word) for word in words):
        return "head"
    if any(_MLP.search(word) for word in words):
        return "MLP"
    if operator == "TopK":
        return "selection"
    if operator == "Add" and module and module == block:  # the block's own sum of an input and a module's output
        return "residual"
    return "data movement" if operator in _DATA_MOVEMENT else "other"


def _serving(nodes: Sequence[onnx.NodeProto], users: Mapping[str, list[onnx.NodeProto]]) -> set[str]:
    """Return the names of all TopK nodes, and of the nodes whose values only these use, directly or indirectly."""
    found: set[str] = set()
    for node in reversed(nodes):
        using = [user for name in node.output for user in users[name]]
        if node.op_type == "TopK" or (using and all(node_name(user) in found for user in using)):
            found.add(node_name(node))
    return found


def _converting(
    node: onnx.NodeProto,
    nodes: Sequence[onnx.NodeProto],
    users: Mapping[str, list[onnx.NodeProto]],
    parts: dict[str, Part],
) -> Part:
    """Return the part of a conversion: that of its user, else of its source; inside a block it is data movement."""

    def near() -> Iterator[onnx.NodeProto]:
        for name in node.output:
            yield from users[name]
        yield from (other for other in nodes if not set(other.output).isdisjoint(node.input))

    known = (parts[node_name(other)] for other in near())
    found = next((part for part in known if part.module), Part("", "", "data movement"))
    return Part(found.module, found.block, "data movement" if found.block else found.kind)
