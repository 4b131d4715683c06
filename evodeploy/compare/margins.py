"""How clear an artefact's selections are: the margin between the last token kept and the first one dropped.

A clear margin means that rounding will not change which tokens are kept. The share of class attention that the kept
tokens hold says what the others could still have given: where it is near 1, a lower keep ratio is worth a try.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evodeploy.compare.relative import relative_margins
from evodeploy.compare.selections import SelectionOutput, run_selections
from evodeploy.engines.base import Engine
from evodeploy.errors import UsageError

SHARES = (0.9, 0.95)  # of the class attention, for which the keep ratio is looked up


@dataclass(frozen=True)
class Spread:
    """A figure over images: that of the median image, and of one with which nineteen in twenty do as well."""

    median: float
    worst: float


@dataclass(frozen=True)
class SelectionMargins:
    """One selection that keeps `kept` of `tokens` tokens.

    `margin` is how far the K-th and the (K+1)-th score lie apart, relative to the mean of the two; `attention` the
    share of the class attention that the kept tokens hold; `keep_ratios` the share of tokens that would hold each of
    `SHARES` of it.
    """

    name: str
    kept: int
    tokens: int
    margin: Spread
    attention: Spread
    keep_ratios: dict[float, Spread]


def margins(engine: Engine, seen: NDArray[np.uint8]) -> list[SelectionMargins]:
    """Judge every selection of `engine` that drops tokens, on the pictures `seen` (N, size, size, 3).

    Raises UsageError where it keeps every token, or does not output its selections and their scores.
    """
    return [_margins(each) for each in run_selections(engine, seen) if each.positions.shape[1] < each.tokens]


def _margins(selection: SelectionOutput) -> SelectionMargins:
    if selection.scores is None:
        raise UsageError("the artefact does not output the scores that it selects by: export it with --tokens again")
    ordered = -np.sort(-selection.scores.astype(np.float64), axis=1)
    kept, tokens = selection.positions.shape[1], selection.tokens
    held = np.cumsum(ordered, axis=1) / ordered.sum(axis=1, keepdims=True)
    return SelectionMargins(
        selection.title,
        kept,
        tokens,
        margin=_spread(relative_margins(selection.scores, kept), 5),
        attention=_spread(held[:, kept - 1], 5),
        keep_ratios={share: _spread(((held < share).sum(axis=1) + 1) / tokens, 95) for share in SHARES},
    )


def _spread(values: NDArray[np.float64], worst: int) -> Spread:
    return Spread(float(np.median(values)), float(np.percentile(values, worst)))
