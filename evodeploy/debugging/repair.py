"""Searching for the fewest nodes to keep in FP32 so that a conversion meets a tolerance, by measuring conversions."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from evodeploy.debugging.report import Proposal, Trial, shown

_log = logging.getLogger(__name__)

TRIALS = 80  # the most conversions to measure

Measure = Callable[[Sequence[str]], float]  # the error of a conversion that keeps these nodes in FP32


class _Search:
    """The trials so far; each set of nodes is measured once."""

    def __init__(self, measure: Measure, tolerance: float, always: Sequence[str]) -> None:
        self._measure, self._tolerance, self._always = measure, tolerance, tuple(always)
        self._errors: dict[frozenset[str], float] = {}
        self.trials: list[Trial] = []

    @property
    def over(self) -> bool:
        return len(self.trials) >= TRIALS

    def error(self, kept: Sequence[str]) -> float:
        key = frozenset(kept)
        if key not in self._errors:
            names = list(dict.fromkeys((*self._always, *kept)))
            self._errors[key] = self._measure(names)
            self.trials.append(Trial(len(names), self._errors[key]))
            _log.info(f"  nodes kept in FP32: {len(names)}, error {shown(self._errors[key])}")
        return self._errors[key]

    def meets(self, kept: Sequence[str]) -> bool:
        return self.error(kept) <= self._tolerance


def proposed(
    precision: str, measure: Measure, tolerance: float, suspects: Sequence[str], always: Sequence[str] = ()
) -> Proposal | None:
    """Return the nodes to keep, including `always`; None if keeping all of `suspects` does not meet the tolerance.

    The search takes the fewest first `suspects` that meet the tolerance, because the first are the likeliest causes. It
    then leaves out those that are not needed.
    """
    search = _Search(measure, tolerance, always)
    before = search.error(())
    count = 0
    while not search.meets(suspects[:count]):
        if count >= len(suspects):
            _log.info(f"nothing is proposed: with all {len(suspects)} that could be kept, the error is beyond that")
            return None
        count = max(1, 2 * count)
    kept = _pruned(search, list(suspects[: _fewest(search, suspects, count)]))
    names = list(dict.fromkeys((*always, *kept)))
    minimal = not search.over
    return Proposal(precision, tuple(names), before, search.error(kept), minimal, tuple(search.trials))


def _fewest(search: _Search, suspects: Sequence[str], enough: int) -> int:
    """Return how many of the first suspects are needed: more than half of `enough`, and no more than `enough`."""
    low, high = enough // 2, min(enough, len(suspects))
    while high - low > 1 and not search.over:
        middle = (low + high) // 2
        if search.meets(suspects[:middle]):
            high = middle
        else:
            low = middle
    return high


def _pruned(search: _Search, kept: list[str]) -> list[str]:
    """Return `kept` without unnecessary nodes, trying the least likely first: halves, quarters, … single nodes."""
    size = max(1, len(kept) // 2)
    while size:
        end = len(kept)
        while end > 0 and not search.over:
            without = kept[: max(0, end - size)] + kept[end:]
            if search.meets(without):
                kept = without
            end -= size
        size //= 2
    return kept
