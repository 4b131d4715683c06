"""The number of tokens that an elastic artefact may keep in a run, and checks of the number that a run asks for."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from evodeploy.errors import InputError
from evodeploy.text import brief


@dataclass(frozen=True)
class ElasticStage:
    """A selecting stage for which each run sets how many of its `tokens` to keep, from `low` to `high`."""

    tokens: int
    low: int
    high: int


def stage_ratios(ratios: float | Sequence[float], stages: int) -> tuple[float, ...]:
    """Return a keep ratio for each of `stages`: `ratios` is one for all, or one for each.

    Raises InputError if a ratio is outside (0, 1], or if the number of ratios is wrong.
    """
    several = isinstance(ratios, Sequence) and not isinstance(ratios, str)
    given = tuple(cast("Sequence[float]", ratios)) if several else (cast("float", ratios),)
    if len(given) == 1:
        given *= stages
    if len(given) != stages:
        raise InputError(f"{len(given)} keep ratios given, expected one, or one for each of {stages} stages")
    for ratio in given:
        if not isinstance(ratio, numbers.Real) or isinstance(ratio, bool):
            raise InputError(f"a keep ratio is {brief(repr(ratio))}, expected a number above 0 and up to 1")
        if not 0 < ratio <= 1:
            raise InputError(f"keep ratio {ratio} is outside (0, 1]")
    return tuple(map(float, given))


def shortest_ratio(kept: int, tokens: int) -> float:
    """Return the keep ratio with the fewest digits that keeps `kept` of `tokens`.

    Each candidate is tried, because kept / tokens may keep one token less: in floats 0.29 · 100 is less than 29.
    """
    sizes = [10**digits for digits in range(1, 6)]
    rounded = ((int(kept / tokens * size) + more) / size for size in sizes for more in range(3))
    return next((ratio for ratio in rounded if int(ratio * tokens) == kept), math.nextafter(kept / tokens, 1))


def shared_ratios(stages: Sequence[ElasticStage]) -> tuple[float, ...]:
    """Return the keep ratios of the stages' smallest and largest numbers that all `stages` accept, in rising order."""
    ends = {shortest_ratio(end, stage.tokens) for stage in stages for end in (stage.low, stage.high)}
    return tuple(
        ratio for ratio in sorted(ends) if all(each.low <= int(ratio * each.tokens) <= each.high for each in stages)
    )


def checked_keep(keep: Sequence[int], stages: Sequence[ElasticStage]) -> tuple[int, ...]:
    """Return `keep`, the tokens that each of `stages` keeps. Raises InputError if one is out of bounds."""
    if len(keep) != len(stages):
        raise InputError(f"keep has {len(keep)} numbers of tokens, expected {len(stages)}: one for each stage")
    for number, (kept, stage) in enumerate(zip(keep, stages, strict=True)):
        if not isinstance(kept, numbers.Integral) or isinstance(kept, bool):
            raise InputError(f"keep holds {brief(repr(kept))}, expected whole numbers of tokens")
        if not stage.low <= kept <= stage.high:
            low, high = (shortest_ratio(end, stage.tokens) for end in (stage.low, stage.high))
            raise InputError(
                f"stage {number} cannot keep {kept} of its {stage.tokens} tokens: this artefact keeps {stage.low} "
                f"to {stage.high}, ratios {low:g} to {high:g}"
            )
    return tuple(map(int, keep))
