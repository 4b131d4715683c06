from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from graphs import model_of, value
from onnx import TensorProto, helper, numpy_helper
from versions import exact_layer_norm

from evodeploy.compare.agreement import agreement
from evodeploy.compare.tolerance import TOLERANCES
from evodeploy.engines.opener import open_engine
from evodeploy.errors import UsageError
from evodeploy.graph.precision import reduced_from_onnx
from evodeploy.graph.quantization import quantized_from_onnx
from evodeploy.onnx_files import info_of, precision_of, read_onnx, write_onnx


def images(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, 3, 64, 64), dtype=np.float32)


@pytest.fixture(scope="module")
def quantized(small_onnx):
    return quantized_from_onnx(read_onnx(small_onnx), images(16))


def makers(graph):
    return {name: node for node in graph.node for name in node.output}


def test_linear_layers_are_quantized_and_attention_is_not(quantized):
    made = makers(quantized.model.graph)
    linear, others = [], []
    for node in quantized.model.graph.node:
        if node.op_type in ("MatMul", "Gemm", "Conv"):
            inputs = [made[name].op_type if name in made else "" for name in node.input[:2]]
            (linear if inputs == ["DequantizeLinear"] * 2 else others).append(node.name)
            assert inputs.count("DequantizeLinear") in (0, 2)
    assert len(linear) == quantized.count == 6 * 4 + 1
    assert set(others) == set(quantized.kept)


def test_scales_are_symmetric_and_biases_float_as_tensorrt_wants_it(quantized):
    constants = {t.name: numpy_helper.to_array(t) for t in quantized.model.graph.initializer}
    for node in quantized.model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            scale, zero = (constants[name] for name in node.input[1:])
            assert zero.dtype == np.int8
            assert not zero.any()
            weight = constants.get(node.input[0])
            if weight is None:
                assert scale.shape == ()
            else:
                (axis,) = (attribute.i for attribute in node.attribute if attribute.name == "axis")
                assert scale.shape == (weight.shape[axis],)
                assert (np.abs(weight).max(axis=1 - axis) == 127).all()  # every channel uses the whole range
    assert {array.dtype for name, array in constants.items() if name.endswith("bias")} == {np.dtype(np.float32)}


def test_what_decides_a_selection_reads_no_quantized_value(quantized):
    graph = quantized.model.graph
    made = makers(graph)
    waiting = [name for node in graph.node if node.op_type == "TopK" for name in node.input[:1]]
    seen = set()
    while waiting:
        node = made.get(waiting.pop())
        if node is not None and node.output[0] not in seen and node.op_type != "Split":  # its input is the qkv layer
            seen.add(node.output[0])
            assert node.op_type != "DequantizeLinear", node.name
            waiting += node.input
    assert len(seen) > 10


def test_int8_agrees_with_fp32_in_onnx_runtime_and_openvino(quantized, small_onnx, tmp_path):
    write_onnx(quantized.model, tmp_path / "q.onnx")
    with open_engine(small_onnx) as engine:
        expected = engine.run(images(16, seed=1))
    for runtime in ("onnxruntime", "openvino"):
        with open_engine(tmp_path / "q.onnx", runtime) as engine:
            got = engine.run(images(16, seed=1))
        verdict = agreement(expected, got, TOLERANCES["int8"], grid=8)
        assert verdict.passed, runtime
        assert verdict.logits.median_cosine > 0.99
        assert verdict.logits.mean_error > 0  # values are rounded


def test_the_metadata_says_int8_and_the_interface_is_unchanged(quantized, small_onnx):
    original = read_onnx(small_onnx)
    assert precision_of(quantized.model) == "int8"
    assert info_of(quantized.model) == dataclasses.replace(info_of(original), precision="int8")
    assert list(quantized.model.graph.input) == list(original.graph.input)
    assert list(quantized.model.graph.output) == list(original.graph.output)


def test_the_same_images_give_the_same_file(quantized, small_onnx):
    again = quantized_from_onnx(read_onnx(small_onnx), images(16))
    assert again.model.SerializeToString() == quantized.model.SerializeToString()


@pytest.fixture(scope="module")
def eighths(small_onnx):
    return quantized_from_onnx(read_onnx(small_onnx), images(16), "fp8")


def test_fp8_uses_the_whole_range_of_e4m3(eighths, quantized):
    assert precision_of(eighths.model) == info_of(eighths.model).precision == "fp8"
    assert [node.op_type for node in eighths.model.graph.node] == [n.op_type for n in quantized.model.graph.node]
    constants = {t.name: t for t in eighths.model.graph.initializer}
    weights = [t for name, t in constants.items() if name.endswith("_8bit")]
    assert len(weights) == eighths.count
    for tensor in weights:
        assert tensor.data_type == TensorProto.FLOAT8E4M3FN
        values = np.abs(numpy_helper.to_array(tensor).astype(np.float32))
        assert values.max() == 448
    zeros = [t for name, t in constants.items() if name.endswith("_zero")]
    assert {t.data_type for t in zeros} == {TensorProto.FLOAT8E4M3FN}


def test_fp8_agrees_with_fp32_except_for_rounding(eighths, quantized, small_onnx, tmp_path):
    errors = {}
    with open_engine(small_onnx) as engine:
        expected = engine.run(images(16, seed=1))
    for name, each in (("int8", quantized), ("fp8", eighths)):
        write_onnx(each.model, tmp_path / f"{name}.onnx")
        with open_engine(tmp_path / f"{name}.onnx") as engine:
            got = engine.run(images(16, seed=1))
        assert agreement(expected, got, TOLERANCES[name], grid=8).passed
        errors[name] = np.abs(got["logits"] - expected["logits"]).mean()
    assert 1 < errors["fp8"] / errors["int8"] < 16  # three bits of mantissa, compared with the seven bits of INT8


@exact_layer_norm
def test_what_is_not_quantized_may_be_fp16(quantized, small_onnx, tmp_path):
    mixed = reduced_from_onnx(quantized.model, "fp16").model
    assert precision_of(mixed) == info_of(mixed).precision == "int8"
    constants = {t.name: t for t in mixed.graph.initializer}
    for node in mixed.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            scale = numpy_helper.to_array(constants[node.input[1]])
            assert scale.dtype == np.float16
            assert (scale > 0).all()
    write_onnx(mixed, tmp_path / "mixed.onnx")
    with open_engine(small_onnx) as engine:
        expected = engine.run(images(16, seed=1))
    with open_engine(tmp_path / "mixed.onnx") as engine:
        assert agreement(expected, engine.run(images(16, seed=1)), TOLERANCES["int8"], grid=8).passed


def test_the_scale_of_a_channel_close_to_zero_is_not_rounded_to_zero():
    model = quantized_from_onnx(residual([[1, 1e-7], [0, 0]]), np.float32([[127, 127]])).model
    mixed = reduced_from_onnx(model, "fp16").model
    scales = [numpy_helper.to_array(t) for t in mixed.graph.initializer if "_scale" in t.name]
    assert all((scale > 0).all() for scale in scales)


def residual(weight):
    """Return the model of y = relu(x) + relu(x) W, in which the sum reads the layer's input too."""
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["p"]),
        helper.make_node("Add", ["r", "p"], ["y"]),
    ]
    return model_of(nodes, [value("x", ("batch", 2))], [value("y", ("batch", 2))], {"w": np.float32(weight)})


def test_only_the_layer_sees_the_rounded_input(tmp_path):
    result = quantized_from_onnx(residual([[1, 0], [0, 0]]), np.float32([[127, 127]]))
    write_onnx(result.model, tmp_path / "r.onnx")
    scales = [numpy_helper.to_array(t) for t in result.model.graph.initializer if t.name.endswith("_scale")]
    assert all((scale > 0).all() for scale in scales)  # also for a channel of zeros, because TensorRT requires it
    with open_engine(tmp_path / "r.onnx") as engine:  # one quantization step is 1
        np.testing.assert_allclose(engine.run(np.float32([[10.3, 3.4]]))["y"], [[20.3, 3.4]], rtol=1e-6)


def test_what_is_converted_already_is_refused(quantized, small_onnx):
    with pytest.raises(UsageError, match="holds INT8 weights already"):
        quantized_from_onnx(quantized.model, images(1))
    with pytest.raises(UsageError, match="holds FP16 weights already"):
        quantized_from_onnx(reduced_from_onnx(read_onnx(small_onnx), "fp16").model, images(1))


def test_nothing_to_quantize_and_infinite_activations_are_refused():
    model = residual([[1, 0], [0, 1]])
    with pytest.raises(UsageError, match="activation 'r' is not finite on the 1 images"):
        quantized_from_onnx(model, np.float32([[np.inf, 0]]))
    del model.graph.node[1:]
    model.graph.output[0].name = "r"
    onnx.checker.check_model(model)
    with pytest.raises(UsageError, match="no linear layer"):
        quantized_from_onnx(model, np.float32([[1, 0]]))


def test_outliers_of_layer_norm_are_moved_into_the_weights(quantized, small_onnx):
    before = {t.name: numpy_helper.to_array(t) for t in read_onnx(small_onnx).graph.initializer}
    after = {t.name: numpy_helper.to_array(t) for t in quantized.model.graph.initializer}
    norms = [node for node in quantized.model.graph.node if node.op_type == "LayerNormalization"]
    assert len(norms) == 13
    for node in norms:
        assert not np.array_equal(before[node.input[1]], after[node.input[1]])
