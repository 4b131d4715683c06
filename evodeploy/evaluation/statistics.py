"""Confidence intervals of accuracies, and a test of whether two of them differ."""

from __future__ import annotations

import math

Z = 1.959964  # quantile of the normal distribution for a 95 % interval


def wilson(hits: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of `hits` in `count` trials (Wilson, J. Am. Stat. Assoc. 22, 1927)."""
    if not count:
        return 0.0, 1.0
    share, square = hits / count, Z * Z / count
    centre = share + square / 2
    spread = Z * math.sqrt(share * (1 - share) / count + square / (4 * count))
    return max(0.0, (centre - spread) / (1 + square)), min(1.0, (centre + spread) / (1 + square))


def mcnemar(first_only: int, second_only: int) -> float:
    """Return the p-value for equal accuracy of two classifiers, given how many images only one of them had right.

    It is exact and two-sided: if they were equal, each of these images would be a fair coin (McNemar, Psychometrika 12,
    1947).
    """
    count, fewer = first_only + second_only, min(first_only, second_only)
    ways = tail = 1  # binomial coefficients, each from the one before: there may be thousands, of thousands of digits
    for k in range(fewer):
        ways = ways * (count - k) // (k + 1)
        tail += ways
    return float(min(1.0, 2 * tail / 2**count))
