"""Errors and margins as shares of what they are measured against: the one definition of each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evodeploy.arrays import Array


def relative_errors(expected: Array, got: Array, scale: Array | float | None = None) -> NDArray[np.float64]:
    """The largest difference in each of N images, relative to `scale`: (N,) of two arrays (N, …).

    `scale` broadcasts to the arrays; by default it is the largest magnitude of all `expected`. Where it is 0 the
    difference counts as it is. NaN in either array gives NaN, in `scale` as well.
    """
    ours, theirs = expected.astype(np.float64), got.astype(np.float64)
    scale = np.asarray(np.abs(ours).max() if scale is None else scale, np.float64)
    shares = np.abs(ours - theirs) / np.where(scale == 0, 1, scale)
    errors: NDArray[np.float64] = shares.reshape(len(shares), -1).max(axis=1)
    return errors


def thresholds(scores: Array, kept: int) -> NDArray[np.float64]:
    """Halfway between the last score kept and the first dropped: (N,) of `scores` (N, tokens), `kept` below tokens."""
    last, first = _boundary(scores, kept)
    return (last + first) / 2


def relative_margins(scores: Array, kept: int) -> NDArray[np.float64]:
    """How far the last score kept lies above the first dropped, relative to their `thresholds`: (N,).

    Infinite where every token is kept: then no rounding changes the selection.
    """
    if kept >= scores.shape[1]:
        return np.full(len(scores), np.inf)
    last, first = _boundary(scores, kept)
    margins: NDArray[np.float64] = (last - first) / np.abs((last + first) / 2)
    return margins


def _boundary(scores: Array, kept: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The scores at rank `kept` and at the next, largest first: (N,) each."""
    ordered = -np.sort(-scores.astype(np.float64), axis=1)
    return ordered[:, kept - 1], ordered[:, kept]
