from __future__ import annotations

import numpy as np
import onnx
import pytest
from graphs import model_of, value
from onnx import helper

from evodeploy.exporter.to_onnx import onnx_from_model
from evodeploy.graph.flops import flops_of_onnx
from evodeploy.models.cost import cost_of
from evodeploy.models.random_weights import random_model
from evodeploy.models.zoo import dense_twin, named
from evodeploy.onnx_files import read_onnx


def graph(nodes, shape, weights):
    zeros = {name: np.zeros(size, np.float32) for name, size in weights.items()}
    return model_of(nodes, [value("x", shape)], [value("y", None)], zeros, opset=23)


NODES = {
    "MatMul": (helper.make_node("MatMul", ["x", "w"], ["y"]), ["n", 5, 64], {"w": (64, 96)}, 2 * 5 * 64 * 96),
    "Gemm": (helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1), ["n", 64], {"w": (96, 64), "b": (96,)},
             2 * 64 * 96),
    "Conv": (helper.make_node("Conv", ["x", "w"], ["y"], strides=[4, 4], group=2), ["n", 8, 32, 32],
             {"w": (16, 4, 4, 4)}, 2 * 16 * 8 * 8 * 4 * 4 * 4),
    "Attention": (helper.make_node("Attention", ["x", "x", "x"], ["y"]), ["n", 3, 50, 16], {},
                  2 * 2 * 3 * 50 * 50 * 16),
}  # fmt: skip


@pytest.mark.parametrize("case", NODES)
def test_each_kind_of_product_is_counted(case):
    node, shape, weights, expected = NODES[case]
    assert flops_of_onnx(graph([node], shape, weights)) == expected


def test_a_fixed_batch_counts_for_one_image():
    node, shape, weights, expected = NODES["MatMul"]
    assert flops_of_onnx(graph([node], [4, *shape[1:]], weights)) == expected


def test_what_cannot_be_computed_is_not_guessed():
    foreign = helper.make_node("FusedMatMul", ["x", "w"], ["y"], domain="com.microsoft")
    model = graph([foreign], ["n", 64], {"w": (64, 96)})
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert flops_of_onnx(model) is None
    unknown = helper.make_node("Einsum", ["x", "w"], ["y"], equation="bi,ij->bj")
    assert flops_of_onnx(graph([unknown], ["n", 64], {"w": (64, 96)})) is None


PINNED = {"evo_deit_tiny_patch16_224": 1635508224, "EvoLeViT_128S": 511081472, "deit_dense": 2507366400}


@pytest.mark.parametrize(
    "name", ["deit_dense", *(pytest.param(name, marks=pytest.mark.slow) for name in PINNED if name != "deit_dense")]
)
def test_a_models_graph_takes_what_its_network_takes(name):
    config = dense_twin(named("evo_deit_tiny_patch16_224")) if name == "deit_dense" else named(name)
    flops = flops_of_onnx(onnx_from_model(random_model(config)))
    assert flops == PINNED[name]
    assert flops / 2e9 == pytest.approx(cost_of(config).gflops, rel=5e-3)


def test_counting_leaves_the_model_as_it_is(small_onnx):
    model = read_onnx(small_onnx)
    before = model.SerializeToString(deterministic=True)
    flops_of_onnx(model)
    assert model.SerializeToString(deterministic=True) == before
    onnx.checker.check_model(model)
