"""A greedy search of keep ratios by stage, for networks with too many combinations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

Keep = tuple[float, ...]


def descent(
    ratios: Sequence[float],
    stages: int,
    score: Callable[[Keep], float | None],
    work: Callable[[Keep], float],
    least: float | None = None,
) -> list[Keep]:
    """Return the keep ratios visited on the way down from the largest of `ratios` in all `stages`, including the start.

    Each step lowers one stage to its next ratio: the stage that loses the least accuracy for the work it saves, by
    `score` and `work` of the whole network; between equals the one that saves more. For R ratios and S stages it needs
    at most R S² scores, while the grid has R^S. It ends when no step saves work, when no step keeps a score of `least`,
    or when `score` returns None. Ratios that are not possible have the score minus infinity.
    """
    down = sorted(set(ratios), reverse=True)
    here = (down[0],) * stages
    known = score(here)
    path = [here]
    while known is not None:
        steps = []
        for stage, ratio in enumerate(here):
            if ratio == down[-1]:
                continue
            there = (*here[:stage], down[down.index(ratio) + 1], *here[stage + 1 :])
            reached = score(there)
            if reached is None:
                return path
            if reached == -math.inf:
                continue
            saved = work(here) - work(there)
            if saved > 0 and (least is None or reached >= least):
                steps.append(((known - reached) / saved, -saved, reached, there))
        if not steps:
            break
        *_, known, here = min(steps)
        path.append(here)
    return path
