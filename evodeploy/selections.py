"""What an artefact tells of its selections: which tokens each kept of images, and by what class attention."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evodeploy.engines.base import Array, Engine, run_all
from evodeploy.errors import BadFileError, UsageError
from evodeploy.inference.tokens import kept_on_grid
from evodeploy.preprocess import as_input
from evodeploy.specs import ModelInfo


@dataclass(frozen=True)
class Told:
    """One selection on N images: the `positions` (N, K) that it kept, in its own grid of `side` times `side` tokens.

    `scores` (N, tokens) is the global class attention of all tokens that it chose among, None where that is not told.
    """

    title: str
    positions: Array
    side: int
    scores: NDArray[np.float32] | None


def selecting(engine: Engine) -> ModelInfo:
    """What `engine` runs; raises UsageError where that selects nothing or does not tell, BadFileError for unknown."""
    info = engine.info
    if info is None:
        raise BadFileError("the artefact carries no evodeploy metadata: export its checkpoint with `evodeploy export`")
    if info.dense:
        raise UsageError(f"{info.model} keeps every token (keep ratio 1.0), so there is nothing to see")
    if not any(spec.name.startswith("selected_") for spec in engine.outputs):
        raise UsageError("the artefact does not tell what it keeps: export it with --tokens")
    return info


def selections_of(engine: Engine, seen: NDArray[np.uint8]) -> list[Told]:
    """All selections on the pictures `seen` (N, size, size, 3), first to last; raises as `selecting` does."""
    info = selecting(engine)
    outputs = run_all(engine, as_input(seen, info))
    count = sum(name.startswith("selected_") for name in outputs)
    return [_told(outputs, info, index) for index in range(count)]


def _told(outputs: dict[str, Array], info: ModelInfo, index: int) -> Told:
    before = f", before block {info.stages[index]}" if info.selection == "stage" and index < len(info.stages) else ""
    return Told(f"selection {index + 1}{before}", *kept_on_grid(outputs, info, index), outputs.get(f"scores_{index}"))
