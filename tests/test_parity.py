from __future__ import annotations

import numpy as np

from evodeploy.engines.fake import FakeEngine
from evodeploy.parity import compare
from evodeploy.specs import ModelInfo

INFO = ModelInfo("fake", 8, 4, 3, "stage", (0.5,))
IMAGES = np.zeros((2, 3, 8, 8), np.float32)
LOGITS = np.float32([[1, 2, 3], [4, -10, 6]])
KEPT = np.array([[3, 1], [0, 2]])


def engine(**outputs):
    return FakeEngine(INFO, compute=lambda images: outputs)


def checks(expected, got):
    return list(compare(engine(**expected), engine(**got), IMAGES, tolerance=1e-3))


def test_the_error_is_relative_to_the_largest_magnitude():
    (check,) = checks({"logits": LOGITS}, {"logits": LOGITS + np.float32([[0, 0, 0], [0, 0.005, 0]])})
    assert check.passed
    assert abs(check.error - 5e-4) < 1e-6
    (check,) = checks({"logits": LOGITS}, {"logits": LOGITS + np.float32([[0, 0, 0], [0, 0.05, 0]])})
    assert not check.passed
    assert "worst at image 1" in check.detail


def test_nan_never_passes():
    (check,) = checks({"logits": LOGITS}, {"logits": LOGITS * np.nan})
    assert not check.passed


def test_selections_are_sets():
    (check,) = checks({"selected_0": KEPT}, {"selected_0": KEPT[:, ::-1]})
    assert check.passed
    (check,) = checks({"selected_0": KEPT}, {"selected_0": np.array([[3, 1], [0, 7]])})
    assert not check.passed
    assert check.error == 0.5
    assert "image 1: 1 others for 1" in check.detail


def test_another_shape_fails():
    for name, value in {"logits": LOGITS, "selected_0": KEPT}.items():
        (check,) = checks({name: value}, {name: value[:, :1]})
        assert not check.passed
        assert "shape (2, 1)" in check.detail
