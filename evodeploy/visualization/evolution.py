"""What an artefact tells of the tokens of images: which each selection kept, and by what class attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evodeploy.engines.base import Array, Engine, run_all
from evodeploy.errors import BadFileError, UsageError
from evodeploy.inference.tokens import kept_on_grid
from evodeploy.preprocess import ImageLike, as_input, pictures
from evodeploy.specs import ModelInfo


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
    info = engine.info
    if info is None:
        raise BadFileError("the artefact carries no evodeploy metadata: export its checkpoint with `evodeploy export`")
    if info.dense:
        raise UsageError(f"{info.model} keeps every token (keep ratio 1.0), so there is nothing to see")
    names = [spec.name for spec in engine.outputs if spec.name.startswith("selected_")]
    if not names:
        raise UsageError("the artefact does not tell what it keeps: export it with --tokens")
    seen = pictures(images, info)
    outputs = run_all(engine, as_input(seen, info))
    return [
        Evolution(picture, tuple(_selection(outputs, info, index, row) for index in range(len(names))))
        for row, picture in enumerate(seen)
    ]


def _selection(outputs: dict[str, Array], info: ModelInfo, index: int, row: int) -> SelectionMap:
    positions, side = kept_on_grid(outputs, info, index)
    scores = outputs.get(f"scores_{index}")
    kept = np.zeros(side * side, bool)
    kept[positions[row]] = True
    before = f", before block {info.stages[index]}" if info.selection == "stage" and index < len(info.stages) else ""
    return SelectionMap(
        f"selection {index + 1}{before}",
        kept.reshape(side, side),
        None if scores is None else scores[row].reshape(side, side),
    )
