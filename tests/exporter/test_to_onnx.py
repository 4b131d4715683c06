from __future__ import annotations

import collections

import numpy as np
import onnx
import pytest
import torch
from cases import SMALL

from evodeploy.engines.onnxruntime_engine import OnnxRuntimeEngine
from evodeploy.engines.openvino_engine import OpenVinoEngine
from evodeploy.errors import UsageError
from evodeploy.exporter.to_onnx import onnx_from_model
from evodeploy.models.loaded import reconfigured
from evodeploy.models.random_weights import random_model
from evodeploy.models.zoo import ZOO, with_selection
from evodeploy.onnx_files import info_of, read_onnx, write_onnx


@pytest.fixture(scope="module")
def graph(small_onnx):
    return read_onnx(small_onnx).graph


def shape(value):
    return [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]


def test_inputs_and_outputs_have_their_names_and_a_dynamic_batch_alone(graph):
    assert [(value.name, shape(value)) for value in graph.input] == [("images", ["batch", 3, 64, 64])]
    assert [(value.name, shape(value)) for value in graph.output] == [
        ("logits", ["batch", 10]),
        ("selected_0", ["batch", 32]),
        ("selected_1", ["batch", 32]),
        ("scores_0", ["batch", 64]),
        ("scores_1", ["batch", 64]),
    ]
    assert graph.output[1].type.tensor_type.elem_type == onnx.TensorProto.INT64


def test_no_operator_that_engines_refuse_or_stumble_over(graph):
    operators = collections.Counter(node.op_type for node in graph.node)
    refused = {"ScatterND", "NonZero", "Loop", "If", "Shape", "SequenceAt", "Einsum", "Where"}
    assert refused & set(operators) == set()
    assert operators["TopK"] == 2
    assert operators["LayerNormalization"] == 2 * SMALL.depth + 1
    assert operators["Softmax"] == SMALL.depth + 2  # one for each selection's scores


def test_top_k_has_a_constant_k_and_both_outputs_named(graph):
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "TopK":
            assert onnx.numpy_helper.to_array(constants[node.input[1]]).tolist() == [
                64
            ]  # TopK sorts all tokens, so that joining slow and fast ones is a concatenation
            assert all(node.output)


def test_an_export_is_one_self_contained_file_without_details_of_this_machine(small_onnx):
    assert [path.name for path in small_onnx.parent.iterdir()] == ["small.onnx"]
    data = small_onnx.read_bytes()
    assert b"/evodeploy/" not in data
    assert b"site-packages" not in data


def test_the_model_travels_in_the_metadata(small_onnx, small_checkpoint):
    info = info_of(read_onnx(small_onnx))
    assert (info.model, info.image_size, info.num_classes) == ("evo_deit_test", 64, 10)
    assert info.keep_ratios == (0.5, 0.5)
    assert info.source == small_checkpoint.name
    assert len(info.source_sha256) == 64
    assert info.preprocessing.mean == (0.485, 0.456, 0.406)
    assert info.versions["opset"] == "20"


@pytest.mark.parametrize("engine", [OnnxRuntimeEngine, OpenVinoEngine])
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_engines_agree_with_pytorch_at_every_batch(small, small_onnx, engine, batch):
    images = np.random.default_rng(batch).standard_normal((batch, 3, 64, 64), dtype=np.float32)
    evolved = small.module.evolve(torch.from_numpy(images))
    logits = small.module.classify(evolved).numpy()
    with engine(small_onnx) as opened:
        got = opened.run(images)
    np.testing.assert_allclose(got["logits"], logits, rtol=0, atol=1e-4 * np.abs(logits).max())
    for i, scores in enumerate(evolved.scores):
        np.testing.assert_allclose(got[f"scores_{i}"], scores.numpy(), rtol=1e-3, atol=1e-7)
    for i, positions in enumerate(evolved.selected):
        np.testing.assert_array_equal(np.sort(got[f"selected_{i}"]), positions.sort(dim=1).values.numpy())


@pytest.mark.parametrize(
    ("keep_ratios", "selection", "opset"),
    [((0.3, 0.6), "layer", 20), ((1.0, 0.5), "stage", 18), ((1.0,), "stage", 23), ((0.5,), "stage", 23)],
)
def test_other_selections_and_operator_sets(tmp_path, small, small_images, keep_ratios, selection, opset):
    model = reconfigured(small, with_selection(SMALL, keep_ratios, selection))
    proto = onnx_from_model(model, opset=opset)
    assert proto.opset_import[0].version == opset
    assert any(node.op_type == "Attention" for node in proto.graph.node) == (opset >= 23)
    write_onnx(proto, tmp_path / "m.onnx")
    expected = model.module(torch.from_numpy(small_images)).numpy()
    with OnnxRuntimeEngine(tmp_path / "m.onnx") as engine:
        got = engine.run(small_images)["logits"]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_more_weights_than_an_onnx_file_holds_are_refused_before_tracing(small, monkeypatch):
    monkeypatch.setattr("evodeploy.exporter.to_onnx.LARGEST", 100_000)
    monkeypatch.delattr("torch.onnx.export")
    with pytest.raises(
        UsageError, match=r"evo_deit_test has 0\.\d+ GB of weights in FP32, and an ONNX file holds up to"
    ):
        onnx_from_model(small)


def test_a_fixed_batch_is_fixed(tmp_path, small, small_images):
    write_onnx(onnx_from_model(small, batch=3), tmp_path / "m.onnx")
    with OnnxRuntimeEngine(tmp_path / "m.onnx") as engine:
        assert (engine.batch.min, engine.batch.max) == (3, 3)
        assert engine.run(small_images)["logits"].shape == (3, 10)
        with pytest.raises(UsageError, match="range of 3"):
            engine.run(small_images[:2])


@pytest.mark.parametrize("opset", [17, 24, 0])
def test_an_opset_out_of_range_is_refused(small, opset):
    with pytest.raises(UsageError, match=f"opset {opset}"):
        onnx_from_model(small, opset=opset)


def test_evo_deit_small_has_no_more_nodes_than_it_needs():
    proto = onnx_from_model(random_model(ZOO["evo_deit_small_patch16_224"]))
    assert len(proto.graph.node) <= 328
