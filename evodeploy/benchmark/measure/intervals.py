"""Medians of samples and their confidence, without assumptions about the distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

CONFIDENCE = 0.95
DRAWS = 2000  # of a bootstrap
FEWEST = 6  # the smallest and largest of so few samples still bound the median with that confidence


@dataclass(frozen=True)
class Interval:
    """An estimate and the bounds between which the true value lies with 95 % confidence."""

    value: float
    low: float
    high: float

    @property
    def width(self) -> float:
        """The width of the interval, relative to the estimate."""
        return (self.high - self.low) / self.value

    def inverted(self, numerator: float = 1.0) -> Interval:
        """Return the interval of `numerator` over this quantity, such as images per second from seconds."""
        return Interval(numerator / self.value, numerator / self.high, numerator / self.low)


def median_interval(samples: Sequence[float]) -> Interval:
    """Return the median of at least six `samples` with its bounds. Fewer samples would not give 95 %.

    A sample lies below the true median with probability 1/2 for any distribution, so the number that do is binomial,
    and the k-th smallest and k-th largest bound it (Hahn and Meeker, Statistical Intervals, chapter 5; for timings: Le
    Boudec, Performance Evaluation of Computer and Communication Systems, chapter 2). Samples are assumed to be
    independent.
    """
    if len(samples) < FEWEST:
        raise ValueError(f"a median's interval needs at least {FEWEST} samples, got {len(samples)}")
    rank = _rank(len(samples))
    ordered = np.sort(np.asarray(samples, np.float64))
    return Interval(float(np.median(ordered)), float(ordered[rank - 1]), float(ordered[-rank]))


def _rank(count: int) -> int:
    """Return the largest k with P(fewer than k of `count` fair coins show heads) at most 2.5 %."""
    if count > 1000:  # the normal approximation is off by less than one rank there
        return math.floor((count - 1.96 * math.sqrt(count)) / 2)
    tail, probability, rank = 0.0, 0.5**count, 0
    while tail + probability <= (1 - CONFIDENCE) / 2:
        tail += probability
        probability *= (count - rank) / (rank + 1)
        rank += 1
    return rank


def quantile(samples: Sequence[float], share: float) -> float:
    """Return the value that `share` of `samples` do not exceed, interpolated."""
    return float(np.quantile(np.asarray(samples, np.float64), share))


def trend_probability(samples: Sequence[float]) -> float:
    """Return the probability of so strong a trend over time by chance alone (Spearman's rank correlation)."""
    count = len(samples)
    ranks = midranks(np.asarray(samples, np.float64))
    if count < 3 or ranks.std() == 0:
        return 1.0
    correlation = float(np.corrcoef(ranks, np.arange(count))[0, 1])
    return two_sided(correlation * math.sqrt(count - 1))


def same_location_probability(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the probability that the ranks of two sets of samples differ this much by chance alone.

    It uses the normal approximation of the Mann-Whitney rank-sum test, corrected for ties.
    """
    n, m = len(first), len(second)
    pooled = np.asarray([*first, *second], np.float64)
    ranks = midranks(pooled)
    statistic = float(ranks[:n].sum()) - n * (n + 1) / 2
    _, ties = np.unique(pooled, return_counts=True)
    total = n + m
    spread = n * m / 12 * (total + 1 - float((ties**3 - ties).sum()) / (total * (total - 1)))
    return 1.0 if spread <= 0 else two_sided((statistic - n * m / 2) / math.sqrt(spread))


def ratio_of_medians(numerator: Sequence[float], denominator: Sequence[float]) -> Interval:
    """Return the ratio of two medians of unpaired samples, with bootstrap bounds (percentiles, a fixed seed)."""
    generator = np.random.Generator(np.random.PCG64(0))
    over, under = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    ratios = _medians(generator, over) / _medians(generator, under)
    low, high = np.quantile(ratios, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(np.median(over) / np.median(under)), float(low), float(high))


def _medians(generator: np.random.Generator, samples: Numbers) -> Numbers:
    """Return the medians (DRAWS,) of samples of the same size, drawn with replacement, a million numbers at a time."""
    block = max(1, 1_000_000 // len(samples))
    sizes = [min(block, DRAWS - start) for start in range(0, DRAWS, block)]
    return np.concatenate([np.median(generator.choice(samples, (size, len(samples))), axis=1) for size in sizes])


def midranks(values: Numbers) -> Numbers:
    """Return the rank of each of `values` (N,) from 1. Equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: Numbers = (ends - (counts - 1) / 2)[inverse]
    return ranks


def two_sided(score: float) -> float:
    """Return the probability that a standard normal variable is at least as far from zero as `score`."""
    return math.erfc(abs(score) / math.sqrt(2))
