from __future__ import annotations

import numpy as np
import onnx
import pytest
from graphs import model_of, value
from onnx import helper, numpy_helper

from evodeploy.engines.opener import open_engine
from evodeploy.graph.ranges import channel_ranges
from evodeploy.graph.smoothing import smoothed
from evodeploy.onnx_files import write_onnx

IMAGES = np.random.default_rng(2).standard_normal((12, 3, 4), dtype=np.float32)
SCALE = np.float32([1, 40, 0.5, 1])  # channel 1 has outliers


def normed(*, layer="MatMul", outputs=("y",)):
    """Return the model of y = LayerNorm(x) W on x (batch, 3, 4); 'n' is the output of LayerNorm."""
    weight = np.random.default_rng(3).standard_normal((4, 5), dtype=np.float32)
    last = [helper.make_node("MatMul", ["n", "w"], ["y"])]
    if layer == "Gemm":
        weight = np.ascontiguousarray(weight.T)
        flat = helper.make_node("Flatten", ["x"], ["rows"], axis=-1)
        last = [helper.make_node("Gemm", ["n", "w"], ["y"], transB=1)]
    shapes = {"y": ("rows", 5) if layer == "Gemm" else ("batch", 3, 5), "n": ("batch", 3, 4)}
    before = [flat] if layer == "Gemm" else []
    norm = helper.make_node("LayerNormalization", ["rows" if before else "x", "scale", "bias"], ["n"], axis=-1)
    described = [value("x", ("batch", 3, 4))], [value(name, shapes[name]) for name in outputs]
    weights = {"scale": SCALE, "bias": np.float32([0, 1, 2, 0]), "w": weight}
    return model_of([*before, norm, *last], *described, weights)


def run(model, path):
    write_onnx(model, path)
    with open_engine(path) as engine:
        return engine.run(IMAGES)["y"]


@pytest.mark.parametrize("layer", ["MatMul", "Gemm"])
def test_the_function_stays_and_the_channels_become_even(layer, tmp_path):
    model = normed(layer=layer)
    before = channel_ranges(model, IMAGES, {"n"})
    smooth = smoothed(model, before)
    result = smooth.model
    after = channel_ranges(result, IMAGES, {"n_smooth"})["n_smooth"]
    assert smooth.count == 1
    np.testing.assert_allclose(smooth.magnitudes["n_smooth"], after, rtol=1e-5)
    assert before["n"].max() / before["n"].min() > 20
    assert after.max() / after.min() < 8
    np.testing.assert_allclose(run(result, tmp_path / "b.onnx"), run(model, tmp_path / "a.onnx"), rtol=1e-4, atol=1e-4)


def test_a_norm_that_is_read_elsewhere_is_left_alone():
    for model in (normed(outputs=("y", "n")), normed()):
        if len(model.graph.output) == 1:
            model.graph.node.append(helper.make_node("Mul", ["x", "scale"], ["z"]))  # its scale is used elsewhere
        before = channel_ranges(model, IMAGES, {"n"})
        smooth = smoothed(model, before)
        assert smooth.model is model
        assert smooth.magnitudes["n"] is before["n"]


def test_channels_without_signal_or_weight_keep_theirs(tmp_path):
    model = normed()
    magnitudes = channel_ranges(model, IMAGES, {"n"})
    magnitudes["n"][0] = 0
    weight = numpy_helper.to_array(model.graph.initializer[2]).copy()
    weight[2] = 0
    model.graph.initializer[2].CopyFrom(numpy_helper.from_array(weight, "w"))
    smooth = smoothed(model, magnitudes)
    result = smooth.model
    scale = numpy_helper.to_array(result.graph.initializer[0])
    assert scale[0] == SCALE[0]
    assert scale[2] == SCALE[2]
    assert np.isfinite(smooth.magnitudes["n_smooth"]).all()
    onnx.checker.check_model(result, full_check=True)
    np.testing.assert_allclose(run(result, tmp_path / "b.onnx"), run(model, tmp_path / "a.onnx"), rtol=1e-4, atol=1e-4)
