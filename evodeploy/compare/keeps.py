"""The numbers of kept tokens at which elastic artefacts are compared."""

from __future__ import annotations

import numpy as np

from evodeploy.specs import ModelInfo

SHARES = (0, 0.25, 0.5, 0.75)  # between the fewest tokens (0) and the most (1), which are compared too


def elastic_keeps(info: ModelInfo, seed: int = 0) -> list[tuple[int, ...]]:
    """Return the numbers of tokens to compare an elastic artefact at: five from lowest to highest, and two random ones.

    If it may keep all tokens, the highest is the dense network. The list is empty for a static artefact.
    """
    if not info.elastic:
        return []
    steps = [[stage.low + round(share * (stage.high - stage.low)) for stage in info.elastic] for share in SHARES]
    draw = np.random.default_rng(seed)
    steps += [[int(draw.integers(stage.low, stage.high + 1)) for stage in info.elastic] for _ in range(2)]
    # All tokens in every stage or in none: a network with fixed ratios then selects in the same stages as the artefact.
    below = [[max(s.low, min(k, s.tokens - 1)) for k, s in zip(keep, info.elastic, strict=True)] for keep in steps]
    highest = tuple(stage.high for stage in info.elastic)
    return list(dict.fromkeys([*map(tuple, below), highest]))
