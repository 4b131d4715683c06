from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import SMALL

from evodeploy.engines.onnxruntime_engine import OnnxRuntimeEngine
from evodeploy.exporter.to_onnx import onnx_from_model
from evodeploy.graph.attention import attentions, with_wide_keys
from evodeploy.graph.changed import Changed
from evodeploy.models.random_weights import random_model
from evodeploy.models.zoo import with_selection
from evodeploy.onnx_files import read_onnx, write_onnx


@pytest.mark.parametrize(
    "opset", [pytest.param(18, marks=pytest.mark.slow), 20, pytest.param(23, marks=pytest.mark.slow)]
)
def test_wide_keys_change_nothing_but_widths(levit, opset, tmp_path):
    proto = onnx_from_model(levit, opset=opset)
    changed = with_wide_keys(proto)
    wide, count = changed.model, changed.count
    assert count == len(list(attentions(proto.graph))) == len(list(attentions(wide.graph))) == 9
    assert sum(node.op_type == "Pad" for node in wide.graph.node) == 18 + sum(
        node.op_type == "Pad" for node in proto.graph.node
    )
    images = np.random.default_rng(0).standard_normal((3, 3, 112, 112), dtype=np.float32)
    logits = []
    for i, model in enumerate((proto, wide)):
        write_onnx(model, tmp_path / f"{i}.onnx")
        with OnnxRuntimeEngine(tmp_path / f"{i}.onnx") as engine:
            logits.append(engine.run(images)["logits"])
    expected = levit.module(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(logits[1], logits[0], rtol=0, atol=1e-6 * np.abs(expected).max())
    np.testing.assert_allclose(logits[1], expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_widening_twice_is_widening_once(levit_onnx):
    wide = with_wide_keys(levit_onnx).model
    again = with_wide_keys(wide)
    assert again.count == 0 and again.model is wide


def test_keys_that_are_wide_enough_are_not_changed(small_onnx):
    model = read_onnx(small_onnx)
    same = with_wide_keys(model)
    assert same.model is model and same.count == 0
    assert len(list(attentions(model.graph))) == 6


def test_an_old_opset_is_left_alone(small_onnx):
    model = read_onnx(small_onnx)
    model.opset_import[0].version = 10
    assert with_wide_keys(model) == Changed(model, 0)


def test_a_bias_before_softmax_hides_no_attention():
    """With merging, the bias makes a token count as often as it has members."""
    merged = onnx_from_model(random_model(with_selection(SMALL, fast_path="merge")))
    assert sum(1 for _ in attentions(merged.graph)) == SMALL.depth
