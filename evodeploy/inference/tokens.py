"""Where the tokens lie that a selection kept."""

from __future__ import annotations

import math

from evodeploy.engines.base import Array
from evodeploy.specs import ModelInfo


def kept_on_grid(outputs: dict[str, Array], info: ModelInfo, index: int) -> tuple[Array, int]:
    """The positions (N, K) that selection `index` kept, row by row on its own grid, and the tokens of a side of that.

    Artefacts give positions on the first grid; later ones, as Evo-LeViT has, hold every other row and column of it.
    """
    positions, scores = outputs[f"selected_{index}"], outputs.get(f"scores_{index}")
    grid = info.image_size // info.patch_size
    side = grid if scores is None else math.isqrt(scores.shape[1])
    stride = 2 ** round(math.log2(grid / side))
    return positions // grid // stride * side + positions % grid // stride, side
