"""Names of an export's nodes: module and operator."""

from __future__ import annotations

import onnx
import pytest

from evodeploy.exporter.node_names import name_nodes
from evodeploy.onnx_files import read_onnx


def test_nodes_are_named_by_module_and_operator(small_onnx):
    names = [node.name for node in read_onnx(small_onnx).graph.node]
    assert len(set(names)) == len(names)
    for expected in ("patch_embed/Conv", "blocks.0.attn.qkv/MatMul", "blocks.0.attn/Softmax", "TopK", "head/Gemm"):
        assert expected in names


@pytest.mark.parametrize(
    "scopes, expected", [("['', 'view']", "Abs"), ("['', 'network.a', 'network.a.b', 'view']", "a.b/Abs")]
)
def test_a_node_without_a_module_has_that_of_what_it_reads(scopes, expected):
    first = onnx.helper.make_node("Abs", ["x"], ["y"])
    first.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=scopes)
    second = onnx.helper.make_node("Abs", ["y"], ["z"])
    graph = onnx.helper.make_graph([first, second], "g", [], [])
    name_nodes(graph)
    assert [node.name for node in graph.node] == [expected, f"{expected}_2"]
