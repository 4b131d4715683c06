"""Naming the nodes of an exported graph by the network's module that each belongs to, and its operator.

Reports of layers, of time and of error group by these names, such as `blocks.3.attn.qkv/MatMul`.
"""

from __future__ import annotations

import ast
from collections import Counter

import onnx

_SCOPES = "pkg.torch.onnx.name_scopes"  # in which the exporter writes the modules, outermost first
_OUTER = "network."


def name_nodes(graph: onnx.GraphProto) -> None:
    """Name the nodes of `graph`, as exported by torch.onnx, by module and operator; equal names get a number.

    A node that an optimisation added gets the module of a value that it reads. Nodes outside of inner modules, such as
    those of a selection, are named by their operator alone.
    """
    modules: dict[str, str] = {}  # of each value
    uses: Counter[str] = Counter()
    for node in graph.node:
        module = _module(node)
        if module is None:
            module = next((modules[name] for name in node.input if name in modules), "")
        modules.update(dict.fromkeys(node.output, module))
        name = f"{module}/{node.op_type}" if module else node.op_type
        uses[name] += 1
        node.name = name if uses[name] == 1 else f"{name}_{uses[name]}"


def _module(node: onnx.NodeProto) -> str | None:
    """Return the innermost module of the node: "" for the network itself, None if the exporter names none."""
    scopes = next((each.value for each in node.metadata_props if each.key == _SCOPES), None)
    if scopes is None:
        return None
    path: str = ast.literal_eval(scopes)[-2]  # the last entry is the call
    return path[path.index(_OUTER) + len(_OUTER) :] if _OUTER in path else ""
