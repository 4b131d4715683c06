"""INT8 products on the CPU: they must not saturate, also on a processor without VNNI."""

from __future__ import annotations

from unittest.mock import Mock

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from evodeploy.engines import onnxruntime_engine, openvino_engine
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
    ("machine", "flags", "saturates"),
    [
        ("x86_64", {"sse4_1"}, True),
        ("x86_64", {"avx2", "avx512f"}, True),
        ("x86_64", {"avx2", "avx_vnni"}, False),
        ("x86_64", {"avx2", "avx512f", "avx512_vnni"}, False),
        ("AMD64", set(), True),
        ("aarch64", {"asimd", "i8mm"}, False),
    ],
)
def test_processors_whose_int8_products_saturate(monkeypatch, machine, flags, saturates):
    monkeypatch.setattr(cpu.platform, "machine", lambda: machine)
    monkeypatch.setattr(cpu, "cpu_flags", lambda: flags)
    assert cpu.saturates_int8() == saturates


@pytest.mark.parametrize("saturates", [True, False])
def test_onnxruntime_takes_its_slower_exact_products_only_if_the_fast_ones_saturate(largest, monkeypatch, saturates):
    monkeypatch.setattr(onnxruntime_engine, "saturates_int8", lambda: saturates)
    monkeypatch.setattr(onnxruntime, "InferenceSession", opened := Mock(wraps=onnxruntime.InferenceSession))
    with open_engine(largest, "onnxruntime"):
        pass
    options = opened.call_args.args[1]
    if saturates:
        assert options.get_session_config_entry("session.x64quantprecision") == "1"
    else:
        with pytest.raises(RuntimeError, match="x64quantprecision"):
            options.get_session_config_entry("session.x64quantprecision")


def test_openvino_is_exact_with_the_setting_for_processors_that_saturate(largest, monkeypatch):
    monkeypatch.setattr(openvino_engine, "saturates_int8", lambda: True)
    with open_engine(largest, "openvino") as engine:
        got = engine.run(np.ones((2, 3, 8, 8), np.float32))["logits"]
    np.testing.assert_allclose(got, PIXELS, rtol=1e-5)
