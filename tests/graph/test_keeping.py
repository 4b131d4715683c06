"""Nodes that stay in FP32 on request, by name or by operator type."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graphs import model_of, value
from onnx import TensorProto, helper, numpy_helper

from evodeploy.engines.onnxruntime_engine import OnnxRuntimeEngine
from evodeploy.errors import UsageError, VerificationError
from evodeploy.exporter.pipeline import export
from evodeploy.graph.changed import Changed
from evodeploy.graph.precision import reduced_from_onnx
from evodeploy.graph.quantization import quantized_from_onnx
from evodeploy.graph.ranges import check_fp16_range
from evodeploy.onnx_files import read_onnx, write_onnx

MOVED = "moves numbers between nodes that are kept"


def network(*nodes, weights, shape=("batch", 4)):
    """Return a network with the float input x and output y."""
    return model_of(nodes, [value("x", shape)], [value("y", shape)], weights)


@pytest.fixture
def outliers():
    """The output of `up` exceeds FP16's range. A Reshape is between it and `down`, and `last` follows."""
    nodes = (
        helper.make_node("Mul", ["x", "large"], ["a"], "up"),
        helper.make_node("Reshape", ["a", "shape"], ["b"], "between"),
        helper.make_node("Mul", ["b", "small"], ["c"], "down"),
        helper.make_node("Reshape", ["c", "back"], ["d"], "behind"),
        helper.make_node("Mul", ["d", "w"], ["y"], "last"),
    )
    shape, back = np.array([-1, 2, 2]), np.array([-1, 4])
    weights = {"large": np.float32(6e4), "small": np.float32(1e-5), "w": np.float32([1, 2, 3, 4])}
    return network(*nodes, weights=weights | {"shape": shape, "back": back})


def test_kept_nodes_are_joined_without_casts(outliers, tmp_path):
    half = reduced_from_onnx(outliers, "fp16", ["up", "down"])
    assert half.kept == {"up": "asked for", "between": f"Reshape {MOVED}", "down": "asked for"}
    assert [node.name for node in half.model.graph.node] == [
        "up", "between", "down", "cast_c_fp16", "behind", "last", "cast_y",
    ]  # fmt: skip
    images = np.float32([[3, -2, 1, 0.5]])
    write_onnx(half.model, tmp_path / "half.onnx")
    with OnnxRuntimeEngine(tmp_path / "half.onnx") as engine:
        assert engine.run(images)["y"][0] == pytest.approx([1.8, -2.4, 1.8, 1.2], rel=1e-3)
    assert check_fp16_range(outliers, images, half.kept).name == "y"
    with pytest.raises(VerificationError, match=r"'a' reaches 1\.8e\+05"):
        check_fp16_range(outliers, images)


def test_patterns_are_names_or_operator_types(small_onnx):
    proto = read_onnx(small_onnx)
    softmax = [node for node in proto.graph.node if node.op_type == "Softmax"]
    half = reduced_from_onnx(proto, "fp16", ["Softmax"])
    assert {name for name, reason in half.kept.items() if reason == "asked for"} == {node.name for node in softmax}
    odd = softmax[0]
    odd.name = "odd[0]*?"  # these characters have a meaning in patterns
    assert reduced_from_onnx(proto, "fp16", ["odd[0]*?"]).kept["odd[0]*?"] == "asked for"
    whole = reduced_from_onnx(proto, "fp16", ["*"]).model.graph
    assert {tensor.data_type for tensor in whole.initializer} <= {TensorProto.FLOAT, TensorProto.INT64}
    assert not any(node.op_type == "Cast" and node.name.startswith("cast_") for node in whole.node)


def test_a_pattern_without_a_node_is_refused(outliers, small_onnx, small_images):
    with pytest.raises(
        UsageError,
        match="no node of the ONNX has the name or operator type 'bewteen'.*names or patterns.* such as betw",
    ):
        reduced_from_onnx(outliers, "fp16", ["up", "bewteen"])
    with pytest.raises(UsageError, match="no node of the ONNX has the name or operator type 'Erf'"):
        quantized_from_onnx(read_onnx(small_onnx), small_images, "int8", ["Erf"])


def test_a_weight_that_fp16_does_not_hold_stays_with_its_node():
    proto = network(helper.make_node("Mul", ["x", "w"], ["y"], "scale"), weights={"w": np.float32([7e4, 1, 1, 1])})
    with pytest.raises(UsageError, match=r"weight w reaches 7e\+04, .* with --keep-fp32 'scale', or"):
        reduced_from_onnx(proto, "fp16")
    proto.graph.node[0].output[0] = "z"
    proto.graph.node.append(helper.make_node("Mul", ["z", "v"], ["y"], "rest"))
    proto.graph.initializer.append(numpy_helper.from_array(np.float32([2.0]), "v"))
    kept = reduced_from_onnx(proto, "fp16", ["scale"]).model
    assert {t.name: t.data_type for t in kept.graph.initializer}["w"] == TensorProto.FLOAT


def test_layers_that_are_kept_are_not_quantized(small_onnx, small_images):
    proto = read_onnx(small_onnx)
    products = [node.name for node in proto.graph.node if node.op_type == "MatMul"]
    eighths = quantized_from_onnx(proto, small_images, "int8", products[:1])
    assert eighths.kept[products[0]] == "asked for"
    assert eighths.count == quantized_from_onnx(proto, small_images, "int8").count - 1
    kept = next(node for node in eighths.model.graph.node if node.name == products[0])
    assert not any(name.endswith("_dequantized") for name in kept.input)
    with pytest.raises(UsageError, match="--keep-fp32 names every linear layer"):
        quantized_from_onnx(proto, small_images, "int8", ["MatMul", "Gemm"])


@pytest.mark.parametrize(("precision", "verify"), [("fp16", True), ("bf16", False)])
def test_an_export_that_keeps_every_node_in_fp32_is_refused(small_checkpoint, tmp_path, precision, verify):
    with pytest.raises(UsageError, match=f"--keep-fp32 leaves no node to convert to {precision.upper()}: name fewer"):
        export(small_checkpoint, tmp_path / "x.onnx", precision=precision, keep_fp32=["*"], verify=verify)
    assert list(tmp_path.iterdir()) == []


def test_a_graph_without_floats_to_convert_is_refused_only_where_patterns_left_none(small_onnx):
    unchanged = Changed(read_onnx(small_onnx), 0)
    unchanged.check_changed("fp16", ())
    with pytest.raises(UsageError, match="--keep-fp32 leaves no node to convert to FP16"):
        unchanged.check_changed("fp16", ["*"])


def test_an_export_records_what_it_keeps(small_checkpoint, tmp_path):
    done = export(small_checkpoint, tmp_path / "half.onnx", precision="fp16", keep_fp32=["Softmax"], verify=False)
    softmax = {node.name for node in onnx.load(done.path).graph.node if node.op_type == "Softmax"}
    assert {name for name, why in done.to_dict()["kept_fp32"].items() if why == "asked for"} == softmax
    with pytest.raises(UsageError, match="--keep-fp32 is for --fp16, --bf16, --int8 and --fp8"):
        export(small_checkpoint, tmp_path / "full.onnx", keep_fp32=["Softmax"])
