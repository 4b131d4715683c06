"""The definitions of relative errors and margins."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evodeploy.arrays import Array


def relative_errors(expected: Array, got: Array, scale: Array | float | None = None) -> NDArray[np.float64]:
    """Return the largest difference of each image, relative to `scale`: (N,) from two arrays (N, …).

    `scale` broadcasts to the arrays; by default it is the largest magnitude of all `expected`. If it is 0, the
    difference is absolute. NaN in an array or in `scale` gives NaN.
    """
    ours, theirs = expected.astype(np.float64), got.astype(np.float64)
    scale = np.asarray(np.abs(ours).max() if scale is None else scale, np.float64)
    shares = np.abs(ours - theirs) / np.where(scale == 0, 1, scale)
    errors: NDArray[np.float64] = shares.reshape(len(shares), -1).max(axis=1)
    return errors


def as_ranked(classes: Array, got: Array, probabilities: Array) -> Array:
    """Return the `probabilities` (N, K) of the classes `got` (N, K) in the order of `classes` (N, K).

    A class that is not in `got` counts as having the lowest of its `probabilities`, which is the most it can have.
    """
    ranked = np.repeat(probabilities.min(axis=1, keepdims=True), classes.shape[1], axis=1)
    for row, ours, theirs, values in zip(ranked, classes, got, probabilities, strict=True):
        _, places, sources = np.intersect1d(ours, theirs, return_indices=True)
        row[places] = values[sources]
    return ranked


def thresholds(scores: Array, kept: int) -> NDArray[np.float64]:
    """Return the mean of the last score kept and the first dropped: (N,) from `scores` (N, tokens), `kept` < tokens."""
    last, first = _boundary(scores, kept)
    return (last + first) / 2


def relative_margins(scores: Array, kept: int) -> NDArray[np.float64]:
    """Return how far the last score kept is above the first dropped, relative to their `thresholds`: (N,).

    The margin is infinite if every token is kept, because rounding cannot change the selection then.
    """
    if kept >= scores.shape[1]:
        return np.full(len(scores), np.inf)
    last, first = _boundary(scores, kept)
    margins: NDArray[np.float64] = (last - first) / np.abs((last + first) / 2)
    return margins


def _boundary(scores: Array, kept: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the scores at rank `kept` and at the next rank, largest first: (N,) each."""
    ordered = -np.sort(-scores.astype(np.float64), axis=1)
    return ordered[:, kept - 1], ordered[:, kept]
