"""The tokens of single images that each selection keeps, and the scores by which it chooses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evodeploy.compare.selections import SelectionOutput, run_selections, selecting
from evodeploy.engines.base import Engine
from evodeploy.images import ImageLike
from evodeploy.preprocess import pictures

ANCHOR = np.float32(3)  # below the `models.merging.unlikeness` of every anchor, and not below that of any other token


@dataclass(frozen=True)
class SelectionMap:
    """One selection of one image: `kept` (side, side) marks the tokens that stayed on the slow path.

    `scores` (side, side) holds the scores by which it chose; `side` is that of the grid of tokens at this selection.
    They are the global class attention. If the other tokens are `merged`, they are how unlike a token is to the
    anchors: from 1 to 3, and `ANCHOR` for the anchors themselves.
    """

    title: str
    kept: NDArray[np.bool_]
    scores: NDArray[np.float32] | None
    merged: bool = False


@dataclass(frozen=True)
class Evolution:
    """An image as the network saw it, (size, size, 3), its selections in order, and the keep ratio of each stage."""

    picture: NDArray[np.uint8]
    selections: tuple[SelectionMap, ...]
    keep_ratios: tuple[float, ...]


def evolutions(
    engine: Engine, images: Sequence[ImageLike], keep_ratio: float | Sequence[float] | None = None
) -> list[Evolution]:
    """Return the selections of `engine` on each of `images`; an elastic one runs at `keep_ratio`, by default its own.

    Raises the errors of `selecting`, and InputError in the same cases as `ModelInfo.keep_of`.
    """
    info = selecting(engine)
    ratios, keep = info.ratios_of(keep_ratio), info.keep_of(keep_ratio)
    seen = pictures(images, info)
    selections = run_selections(engine, seen, keep or None)
    return [
        Evolution(picture, tuple(_selection(each, row) for each in selections), ratios)
        for row, picture in enumerate(seen)
    ]


def _selection(selection: SelectionOutput, row: int) -> SelectionMap:
    side = selection.side
    kept = np.zeros(side**2, bool)
    kept[selection.own_positions[row]] = True
    scores = None if selection.scores is None else selection.scores[row].reshape(side, side)
    if scores is not None and selection.merged:
        scores = np.minimum(scores, ANCHOR)  # the order of the anchors follows from their positions
    return SelectionMap(selection.title, kept.reshape(side, side), scores, selection.merged)
