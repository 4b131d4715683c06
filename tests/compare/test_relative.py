from __future__ import annotations

import numpy as np
import pytest

from evodeploy.compare.relative import relative_errors, relative_margins, thresholds

OURS = np.float32([[1, -4], [2, 0]])


def test_errors_are_relative_to_the_largest_magnitude_of_all_images():
    assert relative_errors(OURS, OURS + np.float32([[0.5, 0], [0, -1]])).tolist() == [0.125, 0.25]


def test_errors_relative_to_a_scale_of_each_value():
    scale = np.array([[1, 4], [2, 0]])  # with 0 the difference is absolute
    assert relative_errors(OURS, OURS + np.float32([[0.5, 1], [0, -3]]), scale).tolist() == [0.5, 3.0]


@pytest.mark.parametrize("side", [0, 1])
def test_an_error_of_nan_does_not_pass(side):
    pair = [OURS, OURS.copy()]
    pair[side][0, 0] = np.nan
    assert not relative_errors(*pair)[0] <= 1e9


def test_a_margin_is_relative_to_the_threshold_in_the_middle():
    scores = np.float32([[0.1, 0.5, 0.3, 0.1], [0.25, 0.25, 0.25, 0.25]])
    np.testing.assert_allclose(thresholds(scores, 2), [0.2, 0.25])
    np.testing.assert_allclose(relative_margins(scores, 2), [1.0, 0.0], rtol=1e-6)


def test_no_rounding_changes_a_selection_that_keeps_every_token():
    assert relative_margins(OURS, 2).tolist() == [np.inf, np.inf]
