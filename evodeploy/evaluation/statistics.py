"""How sure an accuracy is, and whether two of them differ."""

from __future__ import annotations

import math

Z = 1.959964  # of a normal distribution's 95 %


def wilson(hits: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share of `hits` in `count` trials (Wilson, J. Am. Stat. Assoc. 22, 1927)."""
    if not count:
        return 0.0, 1.0
    share, square = hits / count, Z * Z / count
    centre = share + square / 2
    spread = Z * math.sqrt(share * (1 - share) / count + square / (4 * count))
    return max(0.0, (centre - spread) / (1 + square)), min(1.0, (centre + spread) / (1 + square))


def mcnemar(first_only: int, second_only: int) -> float:
    """The p-value of two classifiers being equally accurate that were right alone so often on the same images.

    Exact and two-sided: were they equal, each of these images would be a fair coin (McNemar, Psychometrika 12, 1947).
    """
    count, fewer = first_only + second_only, min(first_only, second_only)
    tail = sum(math.comb(count, k) for k in range(fewer + 1))
    return float(min(1.0, 2 * tail / 2**count))
