"""TensorRT for RTX refuses a network here for real, and the smallest part that it refuses is found."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from broken_networks import network
from onnx import helper, numpy_helper

import evodeploy
from evodeploy.builder.refusal import refusal
from evodeploy.engines.tensorrt.flavour import load_flavour
from evodeploy.errors import UsageError
from evodeploy.onnx_files import read_onnx, write_onnx


@pytest.fixture
def refused(tmp_path):
    """Two blocks, and between them and the head a ScatterElements that adds, which TensorRT has not."""
    model = network()
    head = model.graph.node[-1]
    scatter = helper.make_node(
        "ScatterElements", [head.input[0], "rows", "ones"], ["scattered"], "scatter", axis=1, reduction="add"
    )
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(np.zeros((2, 1, 16), np.int64), "rows"),
            numpy_helper.from_array(np.ones((2, 1, 16), np.float32), "ones"),
        ]
    )
    del model.graph.node[-1]
    head_again = helper.make_node("MatMul", ["scattered", "head"], ["logits"], "head/MatMul")
    model.graph.node.extend([scatter, head_again])
    write_onnx(model, tmp_path / "full.onnx")
    return tmp_path / "full.onnx"


def test_the_smallest_part_that_is_refused_is_written(refused, tmp_path, cli):
    code, out, err = cli("bisect", refused, "--runtime", "tensorrt-rtx", "--target", "sm89")
    assert (code, "refuses scatter: Unsupported reduction type" in out) == (0, True), err
    part = read_onnx(tmp_path / "full.refused.onnx")
    assert [node.op_type for node in part.graph.node] == ["ScatterElements"]
    assert [[side.dim_value for side in each.type.tensor_type.shape.dim] for each in part.graph.input] == [[2, 8, 16]]
    onnx.checker.check_model(part, full_check=True)
    assert refusal(part, load_flavour("tensorrt-rtx"), ("sm89",))
    part.graph.node[0].attribute.pop()  # without the reduction it builds
    assert [attribute.name for attribute in part.graph.node[0].attribute] == ["axis"]
    assert refusal(part, load_flavour("tensorrt-rtx"), ("sm89",)) == ""


def test_a_network_that_builds_has_no_such_part(tmp_path):
    write_onnx(network(), tmp_path / "full.onnx")
    found = evodeploy.bisect(tmp_path / "full.onnx", runtime="tensorrt-rtx", targets="sm89", precision="fp16")
    assert (found.part, found.nodes, found.builds) == (None, (), 1)
    assert "at a batch of 2: nothing of it is refused" in str(found)
    assert not (tmp_path / "full.refused.onnx").exists()
    with pytest.raises(UsageError, match="batch is 0, expected 1 or more"):
        evodeploy.bisect(tmp_path / "full.onnx", batch=0)
    with pytest.raises(UsageError, match="unknown target sm1"):
        evodeploy.bisect(tmp_path / "full.onnx", runtime="tensorrt-rtx", targets="sm1")


@pytest.mark.parametrize(("fixed", "built"), [(0, 9), (2, 2)])
def test_parts_have_the_batch_that_is_asked_for_or_the_files_own(fixed, built, small_onnx, tmp_path, monkeypatch):
    model = read_onnx(small_onnx)
    if fixed:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = fixed
    write_onnx(model, tmp_path / "full.onnx")
    seen = []
    monkeypatch.setattr(
        "evodeploy.debugging.refusal.refusal",
        lambda part, *_: seen.append(part.graph.input[0].type.tensor_type.shape.dim[0].dim_value) or "",
    )
    found = evodeploy.bisect(tmp_path / "full.onnx", runtime="tensorrt-rtx", targets="sm89", batch=9)
    assert (seen, found.batch) == ([built], built)
