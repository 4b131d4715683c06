from __future__ import annotations

import numpy as np
import onnx
import pytest
from graphs import model_of, value
from onnx import helper

from evodeploy.compare.parity import Expected
from evodeploy.errors import VerificationError
from evodeploy.exporter.pipeline import export
from evodeploy.graph.ranges import activation_ranges, check_fp16_range
from evodeploy.preprocess import as_input, random_pictures


def test_every_value_has_the_largest_magnitude_it_took():
    model = scaled_by([10, 100], "Relu", ("batch", 2))
    onnx.checker.check_model(model)
    assert activation_ranges(model, np.float32([[1, -2], [3, 1]])) == {"scaled": 200.0, "y": 100.0}
    assert [output.name for output in model.graph.output] == ["y"]


def scaled_by(factors, then="Tanh", shape=(2, 1)):
    nodes = [helper.make_node("Mul", ["x", "w"], ["scaled"]), helper.make_node(then, ["scaled"], ["y"])]
    return model_of(nodes, [value("x", shape)], [value("y", shape)], {"w": np.float32(factors)})


def test_the_largest_of_all_images_counts_also_in_the_last_batch():
    images = np.float32([[1]] * 8 + [[2]] * 2 + [[-3]])  # the model's batch is fixed at 2, so the last one is padded
    largest = check_fp16_range(scaled_by([100]), images)
    assert (largest.name, largest.magnitude, largest.images) == ("scaled", 300.0, 11)


@pytest.mark.parametrize("beyond", [65505.0, float("inf")])
def test_an_activation_that_fp16_cannot_hold_is_named_in_an_error(beyond):
    with pytest.raises(VerificationError, match="activation 'scaled' reaches .* on 2 images, beyond FP16's 65504"):
        check_fp16_range(scaled_by([1.0]), np.float32([[1], [beyond]]))


def test_without_images_the_range_is_that_of_random_ones_in_full_contrast(monkeypatch, tmp_path, small_checkpoint):
    seen = []
    monkeypatch.setattr("evodeploy.graph.ranges.check_fp16_range", lambda _, images, kept: seen.append(images))
    looseness = Expected.looseness  # patched so that no image is clear, and those with less contrast are clearer
    monkeypatch.setattr(Expected, "looseness", lambda found: 1e9 - np.arange(len(looseness(found))))
    monkeypatch.setattr("evodeploy.exporter.writing._verified", lambda *_: ())
    info = export(small_checkpoint, tmp_path / "x.onnx", precision="fp16").info
    np.testing.assert_array_equal(seen[0], as_input(random_pictures(info, 2), info))
