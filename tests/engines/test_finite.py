from __future__ import annotations

import numpy as np

from evodeploy.engines.finite import not_finite


def test_an_image_is_bad_by_one_number_of_one_output():
    logits = np.zeros((4, 3), np.float32)
    scores = np.zeros((4, 2, 2), np.float16)
    logits[1, 2], scores[3, 0, 1] = np.nan, -np.inf
    outputs = {"logits": logits, "selected_0": np.zeros((4, 2), np.int64), "scores_0": scores}
    assert not_finite(outputs).tolist() == [False, True, False, True]


def test_no_images_and_no_floats():
    assert not_finite({}).tolist() == []
    assert not_finite({"logits": np.zeros((0, 3), np.float32)}).tolist() == []
    assert not_finite({"classes": np.zeros((2, 3), np.int64)}).tolist() == [False, False]
