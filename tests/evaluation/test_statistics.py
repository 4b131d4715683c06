from __future__ import annotations

import math
from itertools import product

import pytest

from evodeploy.evaluation.statistics import mcnemar, wilson


@pytest.mark.parametrize(
    "hits, count, low, high",
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (29, 29, 0.8830, 1.0)],
)
def test_wilson_gives_the_intervals_that_are_published(hits, count, low, high):
    """Method 3 of Newcombe, Statistics in Medicine 17, 1998, table I."""
    assert wilson(hits, count) == pytest.approx((low, high), abs=5e-5)


def test_the_interval_of_no_images_is_0_to_1():
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (6, 1), (1, 6), (3, 3), (0, 9), (10, 2)])
def test_mcnemar_counts_the_coins_that_fall_as_unevenly(first, second):
    count, uneven = first + second, abs(first - second)
    as_uneven = sum(abs(2 * sum(coins) - count) >= uneven for coins in product((0, 1), repeat=count))
    assert mcnemar(first, second) == pytest.approx(as_uneven / 2**count)


def test_mcnemar_of_many_images():
    assert mcnemar(500, 400) == pytest.approx(math.erfc(99 / 30 / math.sqrt(2)), rel=0.03)  # continuity-corrected
    assert mcnemar(3000, 3000) == 1.0
    assert mcnemar(24_000, 25_000) == pytest.approx(math.erfc(999 / math.sqrt(49_000) / math.sqrt(2)), rel=0.03)
