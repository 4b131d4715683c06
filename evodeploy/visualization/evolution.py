"""What an artefact tells of the tokens of images: which each selection kept, and by what class attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evodeploy.compare.selections import Told, selecting, selections_of
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
    """What `engine` did with each of `images`; raises UsageError where it selects nothing or does not tell."""
    info = selecting(engine)
    seen = pictures(images, info)
    told = selections_of(engine, seen)
    return [Evolution(picture, tuple(_selection(each, row) for each in told)) for row, picture in enumerate(seen)]


def _selection(told: Told, row: int) -> SelectionMap:
    kept = np.zeros(told.side**2, bool)
    kept[told.own_positions[row]] = True
    scores = None if told.scores is None else told.scores[row].reshape(told.side, told.side)
    return SelectionMap(told.title, kept.reshape(told.side, told.side), scores)
