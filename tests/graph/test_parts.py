"""The parts that nodes belong to, by their names and by the nodes around them."""

from __future__ import annotations

import pytest
from cases import SMALL
from onnx import TensorProto, helper

from evodeploy.exporter.to_onnx import onnx_from_model
from evodeploy.graph.parts import KINDS, Part, main_part, part_of, parts_of
from evodeploy.models.random_weights import random_model
from evodeploy.models.zoo import with_selection
from evodeploy.onnx_files import read_onnx


@pytest.mark.parametrize(
    "name, module, block, kind",
    [
        ("blocks.3.attn.qkv/MatMul", "blocks.3.attn.qkv", "blocks.3", "attention"),
        ("blocks.3.attn/Softmax", "blocks.3.attn", "blocks.3", "attention"),
        ("blocks.3.attn/Transpose_2", "blocks.3.attn", "blocks.3", "data movement"),
        ("blocks.3.mlp.fc1/MatMul", "blocks.3.mlp.fc1", "blocks.3", "MLP"),
        ("blocks.3.norm1/LayerNormalization", "blocks.3.norm1", "blocks.3", "normalisation"),
        ("blocks.3/Add_2", "blocks.3", "blocks.3", "residual"),
        ("blocks.3/Mul", "blocks.3", "blocks.3", "other"),
        ("/encoder/layer.3/Add", "encoder.layer.3", "encoder.layer.3", "residual"),
        ("patch_embed/Conv", "patch_embed", "", "embedding"),
        ("patch_embed.0/Conv", "patch_embed.0", "", "embedding"),
        ("head/Gemm", "head", "", "head"),
        ("norm/LayerNormalization", "norm", "", "normalisation"),
        ("TopK", "", "", "selection"),
        ("stages.1.subsample.attn.kv/MatMul", "stages.1.subsample.attn.kv", "stages.1.subsample", "attention"),
        ("stages.1.blocks.0.mlp.fc2/Add", "stages.1.blocks.0.mlp.fc2", "stages.1.blocks.0", "MLP"),
        ("/blocks/blocks.11/attn/qkv/MatMul", "blocks.11.attn.qkv", "blocks.11", "attention"),
        ("/encoder/layer.3/attention/self/query/MatMul", "encoder.layer.3.attention.self.query", "encoder.layer.3",
         "attention"),
        ("/encoder/layer.3/attention/output/dense/MatMul", "encoder.layer.3.attention.output.dense", "encoder.layer.3",
         "attention"),
        ("/encoder/layer.3/output/dense/MatMul", "encoder.layer.3.output.dense", "encoder.layer.3", "MLP"),
        ("/encoder/layer.3/layernorm_before/LayerNormalization", "encoder.layer.3.layernorm_before", "encoder.layer.3",
         "normalisation"),
        ("/layers/3/mlp/layers.0/MatMul", "layers.3.mlp.layers.0", "layers.3", "MLP"),
        ("encoder.layers.encoder_layer_5.ln_1/Mul", "encoder.layers.encoder_layer_5.ln_1",
         "encoder.layers.encoder_layer_5", "normalisation"),
        ("node_MatMul_9", "", "", "other"),
    ],
)  # fmt: skip
def test_a_name_says_module_block_and_kind(name, module, block, kind):
    assert part_of(name) == Part(module, block, kind)


def kinds_of(graph, *names):
    parts = parts_of(graph)
    assert parts.keys() == {node.name for node in graph.node}
    assert {part.kind for part in parts.values()} <= set(KINDS)
    return [parts[name].kind for name in names]


def operators(graph, kind):
    parts = parts_of(graph)
    return {node.op_type for node in graph.node if parts[node.name].kind == kind}


def test_nodes_without_a_module_are_classified_by_their_place(small_onnx, small_elastic):
    graph = read_onnx(small_onnx).graph
    assert operators(graph, "other") == set()
    assert kinds_of(graph, "Reshape", "Pad", "GatherElements", "TopK_2") == ["embedding"] * 2 + ["selection"] * 2
    assert "ReduceMean" in operators(graph, "head")
    assert operators(graph, "merging") == set()
    elastic = read_onnx(small_elastic).graph
    of_keep = [node.name for node in elastic.node if "keep" in node.input]
    assert set(kinds_of(elastic, *of_keep)) == {"selection"}


def test_every_node_of_an_evo_levit_has_a_kind(levit_onnx):
    """Moving the scores to the next stage's grid counts as attention; each block has two residual sums."""
    assert operators(levit_onnx.graph, "other") == set()
    residual = [part.block for part in parts_of(levit_onnx.graph).values() if part.kind == "residual"]
    subsamplings, blocks = 2, 7
    assert len(residual) == subsamplings + 2 * blocks


def test_if_tokens_merge_only_nodes_that_serve_the_choice_are_the_selection():
    graph = onnx_from_model(random_model(with_selection(SMALL, fast_path="merge"))).graph
    assert operators(graph, "selection") >= {"TopK", "ReduceMax"}
    assert operators(graph, "merging") >= {"ArgMax", "GatherElements", "ScatterElements"}
    assert not operators(graph, "selection") & {"ArgMax", "GatherElements"}


def graph_of(*nodes):
    made = [helper.make_node(operator, [source], [target], name) for name, operator, source, target in nodes]
    return helper.make_graph(made, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])], [])


def test_a_conversion_belongs_to_what_uses_it():
    parts = parts_of(
        graph_of(
            ("blocks.0.mlp.fc1/MatMul", "MatMul", "x", "a"), ("c", "Cast", "a", "b"),
            ("blocks.1.attn.qkv/MatMul", "MatMul", "b", "d"), ("e", "Cast", "d", "f"),
            ("head/Gemm", "Gemm", "d", "g"), ("h", "Cast", "g", "i"),
        )
    )  # fmt: skip
    assert parts["h"] == Part("head", "", "head")
    assert parts["c"] == Part("blocks.1.attn.qkv", "blocks.1", "data movement")
    assert parts["e"] == Part("blocks.1.attn.qkv", "blocks.1", "data movement")


def test_nodes_without_a_name_are_known_by_their_first_output():
    parts = parts_of(
        graph_of(
            ("blocks.0/Abs", "Abs", "x", "a"), ("", "TopK", "a", "b"), ("", "ArgMax", "a", "c"), ("", "Cast", "b", "d"),
            ("blocks.1/Abs", "Abs", "d", "e"), ("", "Abs", "e", "/blocks.1/mlp/Abs_output_0"), ("", "Abs", "e", "f"),
        )
    )  # fmt: skip
    assert [parts[name].kind for name in ("b", "c", "f")] == ["selection", "merging", "head"]
    assert parts["d"] == Part("blocks.1", "blocks.1", "data movement")
    assert parts["/blocks.1/mlp/Abs_output_0"] == Part("blocks.1.mlp", "blocks.1", "MLP")


def test_a_graph_without_blocks_has_kinds_by_operator_and_selects_nothing_without_a_topk():
    assert kinds_of(graph_of(("a", "Softmax", "x", "y"), ("b", "Abs", "y", "z")), "a", "b") == ["attention", "other"]
    between = graph_of(
        ("blocks.0/Abs", "Abs", "x", "a"), ("between", "Abs", "a", "b"), ("blocks.1/Abs", "Abs", "b", "c")
    )
    assert kinds_of(between, "between") == ["other"]


def test_a_fused_node_counts_as_its_main_part():
    parts = [part_of(name) for name in ("blocks.0.attn/Transpose", "blocks.0/Add", "blocks.0.attn.proj/MatMul")]
    assert main_part(parts) == parts[2]
    assert main_part([]) is None
