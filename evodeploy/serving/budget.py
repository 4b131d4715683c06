"""How many tokens a batch may keep so that every request is answered in time: pure functions on measured run times.

A level is a place in the list of keep ratios: the higher, the more tokens, the slower.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

from evodeploy.errors import UsageError
from evodeploy.text import brief

MARGIN = 0.8  # of the target is planned with: the rest is for decoding, HTTP, and runs that take longer than measured
LOW = 0.3  # the least keep ratio, where none is said
LEVELS = 5  # ratios that are measured and chosen among
CALM = 4  # batches in a row that must allow a higher level before it is taken
SLOWNESS = 0.1  # weight of the last run in how much slower runs are than measured
FASTEST, SLOWEST = 0.5, 4.0  # bounds of that: one odd run decides nothing


@dataclass(frozen=True)
class Budget:
    """Answers within `target` seconds, 99 of 100, by keep ratios from `low` to `high`."""

    target: float
    low: float
    high: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what cannot be: raises UsageError."""
        if not self.target > 0:
            raise UsageError(f"the target is {self.target:g} s, expected more than 0")
        if not 0 < self.low <= self.high <= 1:
            raise UsageError(f"the keep ratios are {self.low:g}:{self.high:g}, expected LOW:HIGH above 0 and up to 1")

    @property
    def planned(self) -> float:
        """Seconds from a request's arrival to the end of its run that batches are planned for."""
        return self.target * MARGIN

    @property
    def ratios(self) -> tuple[float, ...]:
        """Those to choose among, ascending."""
        if self.low == self.high:
            return (self.low,)
        step = (self.high - self.low) / (LEVELS - 1)
        return (*(round(self.low + step * level, 4) for level in range(LEVELS - 1)), self.high)


def budget_of(milliseconds: float | None, keep_ratios: str | None) -> Budget | None:
    """The budget that options say, `keep_ratios` as LOW:HIGH; None without a target. Raises UsageError."""
    if milliseconds is None:
        if keep_ratios is not None:
            raise UsageError("a range of keep ratios is for a target: give --target-p99 too")
        return None
    low, colon, high = (keep_ratios or f"{LOW:g}:1").partition(":")
    try:
        ratios = float(low), float(high if colon else "nan")
    except ValueError:
        ratios = math.nan, math.nan
    if not all(map(math.isfinite, ratios)):
        raise UsageError(f"--keep-ratio is '{brief(keep_ratios or '', 60)}', expected LOW:HIGH such as 0.3:1")
    return Budget(milliseconds / 1000, *ratios)


@dataclass(frozen=True)
class Times:
    """Measured seconds of a run: `seconds[i][j]` of `batches[i]` images at `ratios[j]`; both ascend."""

    batches: tuple[int, ...]
    ratios: tuple[float, ...]
    seconds: tuple[tuple[float, ...], ...]

    def of(self, images: int, level: int) -> float:
        """Seconds of `images` at a level: between measured batches on a line, beyond the largest in several runs."""
        whole, rest = divmod(images, self.batches[-1])
        seconds = whole * self.seconds[-1][level]
        if rest:
            place = bisect.bisect_left(self.batches, rest)
            above, after = self.batches[place], self.seconds[place][level]
            if place == 0:
                return seconds + after
            below, before = self.batches[place - 1], self.seconds[place - 1][level]
            seconds += before + (after - before) * (rest - below) / (above - below)
        return seconds


@dataclass(frozen=True)
class State:
    """The level of the last batch, for how many batches a higher one was possible, and how much slower runs are."""

    level: int
    calm: int = 0
    slower: float = 1.0


def largest_batch(times: Times, budget: Budget) -> int:
    """The most images to run at once: who comes as a run begins waits for it, and is run then, both at `low`.

    Raises UsageError where not even single images are in time.
    """
    fitting = [size for size in times.batches if 2 * times.of(size, 0) <= budget.planned]
    if not fitting:
        least = 2 * times.of(times.batches[0], 0) / MARGIN
        raise UsageError(
            f"one image at keep ratio {times.ratios[0]:g} takes {times.of(times.batches[0], 0) * 1000:.1f} ms, so a "
            f"target of {budget.target * 1000:g} ms cannot be held: give {least * 1000:.0f} or more, or a lower ratio"
        )
    return fitting[-1]


def latest(times: Times, level: int, ages: Sequence[float], largest: int, slower: float = 1.0) -> float:
    """The longest seconds from arrival to answer, if all that wait are run now, in batches of `largest`, at a level.

    `ages` has the seconds since the arrival of each image, the oldest first.
    """
    ended = worst = 0.0
    for start in range(0, len(ages), largest):
        batch = ages[start : start + largest]
        ended += slower * times.of(len(batch), level)
        worst = max(worst, batch[0] + ended)
    return worst


def possible(times: Times, budget: Budget, ages: Sequence[float], largest: int, slower: float = 1.0) -> int:
    """The highest level at which all that wait are in time, and so is who comes as this batch begins; 0 where none."""
    size = min(len(ages), largest)
    reserve = slower * times.of(largest, 0)
    for level in range(len(times.ratios) - 1, 0, -1):
        run = slower * times.of(size, level)
        if run + reserve <= budget.planned and latest(times, level, ages, largest, slower) <= budget.planned:
            return level
    return 0


def settled(state: State, level: int) -> State:
    """The state after a batch that allows `level`: lower at once, higher by one step after `CALM` batches."""
    if level <= state.level:
        return State(level, 0, state.slower)
    if state.calm + 1 < CALM:
        return State(state.level, state.calm + 1, state.slower)
    return State(state.level + 1, 0, state.slower)


def corrected(state: State, predicted: float, actual: float) -> State:
    """The state after a run that was `predicted` to take that many seconds, as measured, and took `actual`."""
    last = min(max(actual / predicted, FASTEST), SLOWEST)
    return State(state.level, state.calm, (1 - SLOWNESS) * state.slower + SLOWNESS * last)


def admits(
    times: Times, budget: Budget, waiting: int, images: int, remaining: float, largest: int, slower: float = 1.0
) -> bool:
    """Whether `images` more are in time at the lowest level, behind `waiting` ones and `remaining` seconds of a run.

    Batches count as full ones: those that come later fill them up.
    """
    ends = remaining + slower * times.of(largest, 0) * math.ceil((waiting + images) / largest)
    return ends <= budget.planned or (waiting == 0 and remaining <= 0)
