"""INT8 products on the CPU: they must not saturate, also on a processor without VNNI."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from evodeploy.engines import openvino_engine
from evodeploy.engines.opener import open_engine
from evodeploy.machine import cpu

PIXELS, CLASSES = 3 * 8 * 8, 16


@pytest.fixture
def largest(tmp_path):
    """An ONNX file that multiplies images by weights of 1.0, both quantized to the largest INT8 number."""
    constants = {
        "scale": np.float32(1 / 127),
        "zero": np.int8(0),
        "weights": np.full((PIXELS, CLASSES), 127, np.int8),
        "scales": np.full(CLASSES, 1 / 127, np.float32),
        "zeros": np.zeros(CLASSES, np.int8),
    }
    nodes = [
        helper.make_node("Flatten", ["images"], ["flat"]),
        helper.make_node("QuantizeLinear", ["flat", "scale", "zero"], ["whole"]),
        helper.make_node("DequantizeLinear", ["whole", "scale", "zero"], ["rounded"]),
        helper.make_node("DequantizeLinear", ["weights", "scales", "zeros"], ["matrix"], axis=1),
        helper.make_node("MatMul", ["rounded", "matrix"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes, "largest",
        [helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )  # fmt: skip
    path = tmp_path / "largest.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_sums_of_the_largest_products_are_exact(largest, name):
    with open_engine(largest, name) as engine:
        got = engine.run(np.ones((2, 3, 8, 8), np.float32))["logits"]
    np.testing.assert_allclose(got, PIXELS, rtol=1e-5)


@pytest.mark.parametrize(
    ("flags", "saturates"),
    [
        ({"avx2", "fma"}, True),
        ({"avx2", "avx512f"}, True),
        ({"avx2", "avx_vnni"}, False),
        ({"avx2", "avx512f", "avx512_vnni"}, False),
        ({"asimd", "i8mm"}, False),
        (set(), False),
    ],
)
def test_processors_whose_int8_products_saturate(monkeypatch, flags, saturates):
    monkeypatch.setattr(cpu, "cpu_flags", lambda: flags)
    assert cpu.saturates_int8() == saturates


def test_openvino_is_exact_with_the_setting_for_processors_that_saturate(largest, monkeypatch):
    monkeypatch.setattr(openvino_engine, "saturates_int8", lambda: True)
    with open_engine(largest, "openvino") as engine:
        got = engine.run(np.ones((2, 3, 8, 8), np.float32))["logits"]
    np.testing.assert_allclose(got, PIXELS, rtol=1e-5)
