"""Token selections read from model outputs: the tokens that each selection keeps, and the scores that decide."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evodeploy.engines.base import Array, Engine, run_all
from evodeploy.engines.finite import not_finite
from evodeploy.errors import BadFileError, RuntimeFailedError, UsageError
from evodeploy.preprocess import as_input
from evodeploy.specs import NO_METADATA, ModelInfo

OF_A_SELECTION = ("selected", "scores", "owner", "owner_margin")  # the names of its outputs, before the number


@dataclass(frozen=True)
class SelectionOutput:
    """One selection on N images. It keeps `positions` (N, K), row by row in the first grid of `grid` tokens a side.

    `scores` (N, tokens) are those of the tokens that it selects from; None if the artefact does not output them. They
    are the global class attention, or, if the other tokens are `merged`, how unlike the anchors a token is: see
    `models.merging.unlikeness`.
    """

    title: str
    grid: int
    positions: NDArray[np.int64]
    scores: NDArray[np.float32] | None
    merged: bool = False

    @property
    def side(self) -> int:
        """Tokens along one side of the grid at this selection."""
        return self.grid if self.scores is None else math.isqrt(self.scores.shape[1])

    @property
    def tokens(self) -> int:
        """The number of tokens that it selects from."""
        return self.side**2

    @property
    def own_positions(self) -> NDArray[np.int64]:
        """The `positions`, row by row in the grid at this selection."""
        return on_grid(self.positions, self.grid, self.side)


def on_grid(positions: NDArray[np.int64], grid: int, side: int) -> NDArray[np.int64]:
    """Convert `positions` in a square `grid` to positions in a later one of `side` tokens a side.

    Each later grid holds every second row and column of the previous one.
    """
    stride = 2 ** math.ceil(math.log2(grid / side))  # odd sides are halved upwards: grid / side may be less
    rows, columns = positions // grid // stride, positions % grid // stride
    return np.asarray(rows * side + columns, np.int64)


def selecting(engine: Engine) -> ModelInfo:
    """Return the metadata of the model that `engine` runs.

    Raises UsageError if the model keeps every token or does not output its selections, BadFileError without metadata.
    """
    info = engine.info
    if info is None:
        raise BadFileError(f"the artefact {NO_METADATA}")
    if info.dense:
        raise UsageError(
            f"{info.model} keeps every token (keep ratio 1.0), so there is nothing to see: "
            "`evodeploy export CHECKPOINT --keep-ratio 0.5 --tokens` makes one that selects"
        )
    if not any(spec.name.startswith("selected_") for spec in engine.outputs):
        raise UsageError("the artefact does not output its selections: export it with --tokens")
    return info


def run_selections(engine: Engine, seen: NDArray[np.uint8], keep: Sequence[int] | None = None) -> list[SelectionOutput]:
    """Return all selections for the images `seen` (N, size, size, 3) in order; an elastic artefact keeps `keep` tokens.

    Raises the errors of `selecting` and `Engine.run`, and RuntimeFailedError if an output is NaN or infinite.
    """
    info = selecting(engine)
    outputs = run_all(engine, as_input(seen, info), keep=keep)
    bad = int(not_finite(outputs).sum())
    if bad:
        raise RuntimeFailedError(f"the outputs are not finite (NaN or infinite) for {bad} of {len(seen)} images")
    return selections_from(outputs, info)


def selections_from(outputs: dict[str, Array], info: ModelInfo) -> list[SelectionOutput]:
    """Return all selections in an engine's `outputs`, in order; an empty list if it has no such outputs."""
    count = _count(outputs)
    blocks = _blocks(info, count)
    found = []
    for index in range(count):
        title = f"selection {index + 1}" + (f", before block {blocks[index]}" if index < len(blocks) else "")
        grid = info.image_size // info.patch_size
        kept, scores = outputs[f"selected_{index}"], outputs.get(f"scores_{index}")
        found.append(SelectionOutput(title, grid, kept, scores, info.fast_path == "merge"))
    return found


def _blocks(info: ModelInfo, count: int) -> tuple[int, ...]:
    """Return the blocks before which `count` selections are made; empty if they are not known.

    In an elastic artefact every stage selects, in a static one only stages that keep fewer than all tokens.
    """
    if info.selection != "stage":
        return ()
    if count == len(info.stages):
        return info.stages
    tokens = (info.image_size // info.patch_size) ** 2
    stages = zip(info.stages, info.keep_ratios, strict=False)
    return tuple(block for block, ratio in stages if int(ratio * tokens) < tokens)


def shared_selections(ours: Mapping[str, Array], theirs: Mapping[str, Array]) -> list[int]:
    """Return the numbers of the selections in `ours` that `theirs` can have too: all, or those that drop tokens.

    In a stage that keeps every token, an elastic network selects and a static one does not.
    """
    numbers = [*range(_count(ours))]
    return numbers if len(numbers) <= _count(theirs) else [each for each in numbers if _drops_tokens(ours, each)]


def renumbered(outputs: Mapping[str, Array], selections: Collection[int]) -> dict[str, Array]:
    """Return `outputs` with only the given `selections`, renumbered from 0."""
    numbers = {str(number): new for new, number in enumerate(selections)}
    found = {}
    for name, value in outputs.items():
        kind, _, number = name.rpartition("_")
        if kind not in OF_A_SELECTION:
            found[name] = value
        elif number in numbers:
            found[f"{kind}_{numbers[number]}"] = value
    return found


def _count(outputs: Mapping[str, Array]) -> int:
    return sum(name.startswith("selected_") for name in outputs)


def _drops_tokens(outputs: Mapping[str, Array], number: int) -> bool:
    scores = outputs.get(f"scores_{number}")
    return scores is None or outputs[f"selected_{number}"].shape[1] < scores.shape[1]
