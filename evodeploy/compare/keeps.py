"""The numbers of kept tokens at which elastic artefacts are compared."""

from __future__ import annotations

import numpy as np

from evodeploy.specs import ModelInfo

SHARES = (0, 0.25, 0.5, 0.75)  # of the way from the fewest tokens to the most, which are compared too


def elastic_keeps(info: ModelInfo, seed: int = 0) -> list[tuple[int, ...]]:
    """The tokens that an elastic artefact is compared at: five from its lowest to its highest, and two random ones.

    Where it may keep all tokens, the highest is the dense network. None of a static artefact.
    """
    if not info.elastic:
        return []
    steps = [[stage.low + round(share * (stage.high - stage.low)) for stage in info.elastic] for share in SHARES]
    draw = np.random.default_rng(seed)
    steps += [[int(draw.integers(stage.low, stage.high + 1)) for stage in info.elastic] for _ in range(2)]
    # All tokens in every stage or in none: a network that is configured so selects then where the artefact does.
    below = [[max(s.low, min(k, s.tokens - 1)) for k, s in zip(keep, info.elastic, strict=True)] for keep in steps]
    highest = tuple(stage.high for stage in info.elastic)
    return list(dict.fromkeys([*map(tuple, below), highest]))
