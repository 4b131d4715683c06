from __future__ import annotations

import math

import numpy as np
import pytest

from evodeploy.benchmark.measure.intervals import (
    Interval,
    median_interval,
    midranks,
    ratio_of_medians,
    same_location_probability,
    trend_probability,
)


@pytest.mark.parametrize(("count", "rank"), [(6, 1), (8, 1), (9, 2), (20, 6), (50, 18), (100, 40), (1000, 469)])
def test_the_median_lies_between_the_samples_of_published_tables(count, rank):
    interval = median_interval(range(count, 0, -1))
    assert (interval.low, interval.high) == (rank, count + 1 - rank)
    assert interval.value == (count + 1) / 2


def test_the_approximation_for_many_samples_continues_the_exact_ranks():
    assert median_interval(range(1, 1002)).low - median_interval(range(1, 1001)).low in (0, 1)


def test_an_interval_of_a_skewed_distribution_covers_its_median_as_often_as_it_says():
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(1000):
        interval = median_interval(generator.exponential(size=25))
        covered += interval.low <= math.log(2) <= interval.high
    assert 940 <= covered <= 975  # 95.7 % of 25 samples


def test_too_few_samples_have_no_interval():
    with pytest.raises(ValueError, match="at least 6 samples, got 5"):
        median_interval([1.0] * 5)


def test_seconds_turn_into_images_per_second():
    assert Interval(0.5, 0.25, 1.0).inverted(8) == Interval(16, 8, 32)
    assert Interval(2.0, 1.0, 4.0).width == 1.5


def test_equal_values_share_a_rank():
    assert midranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [3.5, 1.0, 3.5, 2.0]


def test_a_trend_is_separated_from_noise():
    noise = np.random.default_rng(2).normal(size=60)
    assert trend_probability(noise) > 0.05
    assert trend_probability(noise + np.arange(60) / 15) < 1e-6
    assert trend_probability([1.0] * 20) == 1.0


def test_a_shift_is_separated_from_noise_and_matches_published_values():
    # Mann and Whitney's statistic of these is U = 3 of 25; z = -1.984 without continuity correction.
    assert same_location_probability([1, 2, 3, 4, 7], [5, 6, 8, 9, 10]) == pytest.approx(0.0283, abs=5e-4)
    generator = np.random.default_rng(3)
    first, second = generator.exponential(size=(2, 200))
    assert same_location_probability(first, second) > 0.05
    assert same_location_probability(first, second + 0.5) < 1e-6
    assert same_location_probability([2.0] * 9, [2.0] * 9) == 1.0
    # U = 0 of 1, with a spread below one: z = -0.5 / sqrt(3 / 12).
    assert same_location_probability([1], [2]) == pytest.approx(0.3173, abs=5e-5)


def test_a_ratio_of_medians_is_bounded_by_bootstrap():
    generator = np.random.default_rng(4)
    slow, fast = generator.normal(2, 0.1, 80), generator.normal(1, 0.05, 80)
    ratio = ratio_of_medians(slow, fast)
    assert ratio.value == np.median(slow) / np.median(fast)
    assert ratio.low < 2 < ratio.high
    assert ratio.width < 0.08
    assert ratio == ratio_of_medians(slow, fast)
