"""The tokens of single images: which of them each selection keeps, and by what class attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evodeploy.compare.selections import SelectionOutput, run_selections, selecting
from evodeploy.engines.base import Engine
from evodeploy.images import ImageLike
from evodeploy.preprocess import pictures


@dataclass(frozen=True)
class SelectionMap:
    """One selection of one image: `kept` (side, side) marks the tokens that stayed on the slow path.

    `scores` (side, side) is the global class attention that it chose by; a `side` is that of the tokens' grid there.
    """

    title: str
    kept: NDArray[np.bool_]
    scores: NDArray[np.float32] | None


@dataclass(frozen=True)
class Evolution:
    """An image as the network saw it, (size, size, 3), and its selections from first to last."""

    picture: NDArray[np.uint8]
    selections: tuple[SelectionMap, ...]


def evolutions(engine: Engine, images: Sequence[ImageLike]) -> list[Evolution]:
    """The selections of `engine` on each of `images`; raises as `selecting` does."""
    info = selecting(engine)
    seen = pictures(images, info)
    selections = run_selections(engine, seen)
    return [Evolution(picture, tuple(_selection(each, row) for each in selections)) for row, picture in enumerate(seen)]


def _selection(selection: SelectionOutput, row: int) -> SelectionMap:
    side = selection.side
    kept = np.zeros(side**2, bool)
    kept[selection.own_positions[row]] = True
    scores = None if selection.scores is None else selection.scores[row].reshape(side, side)
    return SelectionMap(selection.title, kept.reshape(side, side), scores)
