from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
import torch
from graphs import model_of, value
from onnx import TensorProto, helper, numpy_helper

from evodeploy.engines.onnxruntime_engine import OnnxRuntimeEngine
from evodeploy.errors import UsageError
from evodeploy.exporter.pipeline import export
from evodeploy.graph.precision import reduced_from_onnx
from evodeploy.onnx_files import info_of, precision_of, read_onnx, write_onnx


@pytest.fixture(scope="module")
def half(small_onnx):
    return reduced_from_onnx(read_onnx(small_onnx), "fp16")


def types(proto):
    inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True)
    graph = inferred.graph
    found = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.input, *graph.output)}
    return found | {tensor.name: tensor.data_type for tensor in graph.initializer}


def test_all_weights_are_half_and_the_interface_is_unchanged(half, small_onnx):
    assert precision_of(half.model) == "fp16"
    floats = [t for t in half.model.graph.initializer if t.data_type == TensorProto.FLOAT]
    assert sum(np.prod(t.dims) for t in floats) <= 16  # the constants of the blend
    original = read_onnx(small_onnx).graph
    assert list(half.model.graph.input) == list(original.input)
    assert list(half.model.graph.output) == list(original.output)
    original_info = info_of(read_onnx(small_onnx))
    assert original_info.precision == "fp32"
    assert info_of(half.model) == dataclasses.replace(original_info, precision="fp16")


def test_products_and_norms_run_in_fp16_and_selections_in_fp32(half):
    kinds = types(half.model)
    for node in half.model.graph.node:
        if node.op_type in ("MatMul", "LayerNormalization", "Gelu", "Conv"):
            assert kinds[node.output[0]] == TensorProto.FLOAT16, node.name
        if node.op_type == "TopK":
            assert kinds[node.input[0]] == TensorProto.FLOAT
            assert half.kept[node.name] == "TopK decides a selection"
    made = [node for node in half.model.graph.node if kinds[node.output[0]] == TensorProto.FLOAT16]
    assert half.count == sum(not node.name.startswith("cast_") for node in made)
    softmaxes = [kinds[node.output[0]] for node in half.model.graph.node if node.op_type == "Softmax"]
    assert softmaxes.count(TensorProto.FLOAT) == 2  # one for block 1, one for blocks 2 and 3 together
    assert softmaxes.count(TensorProto.FLOAT16) == 6


def test_fp16_agrees_with_fp32_within_its_precision(tmp_path, half, small_onnx):
    write_onnx(half.model, tmp_path / "h.onnx")
    images = np.random.default_rng(0).standard_normal((16, 3, 64, 64), dtype=np.float32)
    with OnnxRuntimeEngine(small_onnx) as full, OnnxRuntimeEngine(tmp_path / "h.onnx") as halved:
        expected, got = full.run(images), halved.run(images)
    errors = np.abs(expected["logits"] - got["logits"]).max(axis=1) / np.abs(expected["logits"]).max()
    assert np.median(errors) < 2e-3  # a near tie with another result may change single images more
    kept = [np.isin(a, b).mean() for a, b in zip(expected["selected_0"], got["selected_0"], strict=True)]
    assert np.mean(kept) > 0.99


def tiny(weight):
    described = [value("x", ("batch", 2))], [value("y", ("batch", 2))]
    return model_of([helper.make_node("Mul", ["x", "w"], ["y"])], *described, {"w": weight})


def weight_in(precision, weight):
    """Return the weight of a product after the conversion."""
    (converted,) = reduced_from_onnx(tiny(weight), precision).model.graph.initializer
    return numpy_helper.to_array(converted).astype(np.float32).tolist()


def test_a_weight_beyond_the_range_of_half_is_refused_not_saturated():
    with pytest.raises(UsageError, match=r"weight w reaches 7e\+04, beyond FP16's 65504"):
        reduced_from_onnx(tiny(np.float32([7e4, 1.0])), "fp16")
    assert weight_in("fp16", np.float32([65504.0, -65504.0])) == [65504.0, -65504.0]
    assert weight_in("fp16", np.float32([np.inf, 1.0])) == [np.inf, 1.0]
    assert weight_in("bf16", np.float32([7e4, 1.0])) == pytest.approx([7e4, 1.0], rel=2**-8)


def test_only_a_scalar_close_to_zero_stays_above_zero_in_fp16():
    """It may be an epsilon that protects a divisor; FP16's smallest number is 2 ** -24."""
    assert [weight_in("fp16", np.float32(number)) for number in (1e-12, -1e-12, 0.0)] == [2**-24, -(2**-24), 0.0]
    assert weight_in("fp16", np.float32([1e-12, 1.0])) == [0.0, 1.0]
    assert weight_in("bf16", np.float32(1e-12)) == pytest.approx(1e-12, rel=2**-8)


def test_a_model_that_is_half_already_is_refused(half):
    with pytest.raises(UsageError, match="holds FP16 weights already"):
        reduced_from_onnx(half.model, "fp16")


def test_an_output_that_other_nodes_read_keeps_its_type(tmp_path):
    proto = tiny(np.float32([2.0, 3.0]))
    proto.graph.node.append(helper.make_node("Mul", ["y", "w"], ["z"]))
    proto.graph.output.append(value("z", ("batch", 2)))
    write_onnx(reduced_from_onnx(proto, "fp16").model, tmp_path / "h.onnx")
    with OnnxRuntimeEngine(tmp_path / "h.onnx") as engine:
        got = engine.run(np.float32([[1.0, 2.0]]))
    assert {name: value.tolist() for name, value in got.items()} == {"y": [[2.0, 6.0]], "z": [[4.0, 18.0]]}
    assert {value.dtype for value in got.values()} == {np.dtype("float32")}


def test_an_operator_whose_outputs_have_no_half_form_stays_single_and_is_named(tmp_path):
    proto = tiny(np.float32([1.0, 4.0]))
    norm = helper.make_node("LayerNormalization", ["m", "w"], ["y", "mean"], "norm")
    proto.graph.node[0].CopyFrom(helper.make_node("Mul", ["x", "w"], ["m"], "scale"))
    proto.graph.node.append(norm)
    proto.graph.output.append(value("mean", ("batch", 1)))
    half = reduced_from_onnx(proto, "fp16")
    assert half.kept == {"norm": "LayerNormalization has no FP16 form at opset 20"}
    write_onnx(half.model, tmp_path / "h.onnx")
    with OnnxRuntimeEngine(tmp_path / "h.onnx") as engine:
        assert engine.run(np.float32([[1.0, 2.0]]))["mean"].tolist() == [[4.5]]


def test_bfloat16_at_an_opset_that_has_it(tmp_path, small, small_images):
    from evodeploy.engines.openvino_engine import OpenVinoEngine
    from evodeploy.exporter.to_onnx import onnx_from_model

    reduced = reduced_from_onnx(onnx_from_model(small, opset=23), "bf16")
    assert precision_of(reduced.model) == info_of(reduced.model).precision == "bf16"
    assert all("decides a selection" in reason for reason in reduced.kept.values())
    write_onnx(reduced.model, tmp_path / "b.onnx")
    with OpenVinoEngine(tmp_path / "b.onnx") as engine:
        got = engine.run(small_images)["logits"]
    expected = small.module(torch.from_numpy(small_images)).numpy()
    assert np.median(np.abs(got - expected).max(axis=1)) < 3e-2 * np.abs(expected).max()
    assert not np.array_equal(got, expected)


def test_operators_without_a_bfloat16_form_stay_single(small_onnx):
    reduced = reduced_from_onnx(read_onnx(small_onnx), "bf16")  # at opset 20, convolution is not defined for BF16
    conv = next(node for node in reduced.model.graph.node if node.op_type == "Conv")
    assert reduced.kept[conv.name] == "Conv has no BF16 form at opset 20"
    assert types(reduced.model)[conv.output[0]] == TensorProto.FLOAT


def test_an_export_in_bfloat16_is_at_the_opset_that_has_it(tmp_path, small_checkpoint):
    path = tmp_path / "b.onnx"
    export(small_checkpoint, path, precision="bf16", verify=False)
    proto = read_onnx(path)
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", 22)]
    assert info_of(proto).versions["opset"] == "22"
    conv = next(node for node in proto.graph.node if node.op_type == "Conv")
    assert types(proto)[conv.output[0]] == TensorProto.BFLOAT16
    with pytest.raises(UsageError, match="--bf16 needs opset 22 or higher, not 20: leave out --opset"):
        export(small_checkpoint, tmp_path / "c.onnx", precision="bf16", opset=20)
