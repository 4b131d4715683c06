"""How many tokens a batch may keep so that every request is answered in time: pure functions on measured run times.

A level is an index into the list of keep ratios. A higher level keeps more tokens and is slower.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from evodeploy.errors import UsageError

MARGIN = 0.8  # share of the target to plan with: the rest is for decoding, HTTP, and runs slower than measured
ADMITTED = 0.9  # share of the target used for admission: a refused request is never in time, an admitted one usually is
CLEARED = 0.6  # share of the planned time in which several waiting images must be answered: more may follow
CLEARED_GROWING = 0.3  # the same if the queue grows; not 0, since clients that wait for answers make it seem to grow
LOW = 0.3  # the default of the lowest keep ratio
LEVELS = 5  # number of ratios to measure and to choose from
CALM = 4  # consecutive batches that must allow a higher level before it is used
BUSY = 0.9  # share of the time that runs may take: if images arrive at a rate that needs more, the queue grows
RECENT = 9  # runs whose median gives the slowdown against the measured times: a few outliers do not change it


@dataclass(frozen=True)
class Budget:
    """A target of `target` seconds for 99 of 100 answers, reached by keep ratios from `low` to `high`."""

    target: float
    low: float
    high: float = 1.0

    def __post_init__(self) -> None:
        """Check the values. Raises UsageError if the target or the range of ratios is impossible."""
        if not self.target > 0:
            raise UsageError(f"the target is {self.target:g} s, expected more than 0")
        if not 0 < self.low <= self.high <= 1:
            raise UsageError(f"the keep ratios are {self.low:g}:{self.high:g}, expected LOW:HIGH above 0 and up to 1")

    @property
    def planned(self) -> float:
        """Seconds from a request's arrival to the end of its run for which batches are planned."""
        return self.target * MARGIN

    @property
    def ratios(self) -> tuple[float, ...]:
        """The keep ratios to choose from, in ascending order."""
        if self.low == self.high:
            return (self.low,)
        step = (self.high - self.low) / (LEVELS - 1)
        between = (round(self.low + step * level, 4) for level in range(1, LEVELS - 1))
        return (self.low, *(min(max(each, self.low), self.high) for each in between), self.high)


def budget_of(milliseconds: float | None, keep_ratios: tuple[float, float] | None) -> Budget | None:
    """Return the budget for a target and a range of ratios, or None. Raises UsageError for a range without a target."""
    if milliseconds is not None:
        return Budget(milliseconds / 1000, *(keep_ratios or (LOW,)))
    if keep_ratios is not None:
        raise UsageError("a range of keep ratios needs a target: give --target-p99 too")
    return None


@dataclass(frozen=True)
class Times:
    """Duration of runs: `seconds[i][j]` for `batches[i]` images at `ratios[j]`. All three are in ascending order."""

    batches: tuple[int, ...]
    ratios: tuple[float, ...]
    seconds: tuple[tuple[float, ...], ...]

    def of(self, images: int, level: int) -> float:
        """Return the seconds of `images` at a level: interpolated between batches, several runs above the largest."""
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

    def slowed(self, factor: float) -> Times:
        """Return the times if each run takes `factor` times as long."""
        return dataclasses.replace(self, seconds=tuple(tuple(factor * each for each in row) for row in self.seconds))


def times_of(batches: Sequence[int], ratios: Sequence[float], seconds: Sequence[Sequence[float]]) -> Times:
    """Return the measured times. A run slower than one with more work was held up, and counts as fast as that one."""
    table = [list(row) for row in seconds]
    for i in reversed(range(len(batches))):
        for j in reversed(range(len(ratios))):
            more = [table[i + 1][j]] if i + 1 < len(batches) else []
            more += [table[i][j + 1]] if j + 1 < len(ratios) else []
            table[i][j] = min([table[i][j], *more])
    return Times(tuple(batches), tuple(ratios), tuple(map(tuple, table)))


@dataclass(frozen=True)
class State:
    """The level of the last batch, the number of batches that allowed a higher one, and the recent slowdown.

    `recent` holds the duration of each of the last runs, relative to the measured one.
    """

    level: int
    calm: int = 0
    recent: tuple[float, ...] = (1.0,) * RECENT

    @property
    def slower(self) -> float:
        """The current duration of runs, relative to the measured one."""
        return statistics.median(self.recent)


def check_target(times: Times, budget: Budget) -> None:
    """Raise UsageError if even the smallest batches cannot be in time."""
    smallest = times.batches[0]
    least = 2 * times.of(smallest, 0)
    if least > budget.planned:
        what = "one image" if smallest == 1 else f"a batch of {smallest} images"
        give = math.ceil(least / MARGIN * 1000)
        raise UsageError(
            f"{what} at keep ratio {times.ratios[0]:g} takes {least * 500:.1f} ms, so a target of "
            f"{budget.target * 1000:g} ms cannot be met: give {give} or more, or a lower ratio"
        )


def largest_batch(times: Times, budget: Budget) -> int:
    """Return the most images to run together: one that just misses a run waits for it and then runs, both at `low`."""
    sizes = range(times.batches[-1], times.batches[0], -1)
    return next((size for size in sizes if 2 * times.of(size, 0) <= budget.planned), times.batches[0])


def patience(times: Times, budget: Budget) -> float:
    """Return the seconds that an image may wait for others to run with it.

    Together with a run at the highest ratio, that is the shortest time in which waiting images must be answered.
    """
    return max(0.0, CLEARED_GROWING * budget.planned - times.of(times.batches[0], len(times.ratios) - 1))


def latest(times: Times, level: int, ages: Sequence[float], largest: int) -> float:
    """Return the longest time from arrival to answer if all waiting images run now at `level`, in batches of `largest`.

    `ages` holds the seconds since the arrival of each image, the oldest first.
    """
    ended = worst = 0.0
    for start in range(0, len(ages), largest):
        batch = ages[start : start + largest]
        ended += times.of(len(batch), level)
        worst = max(worst, batch[0] + ended)
    return worst


def possible(times: Times, budget: Budget, ages: Sequence[float], rate: float) -> int:
    """Return the highest level at which all waiting images, and one that arrives now, are in time; 0 if there is none.

    If `rate` images per second let the queue grow at a level, the waiting images must be answered sooner there.
    """
    largest = largest_batch(times, budget)
    size, reserve = min(len(ages), largest), times.of(largest, 0)
    for level in range(len(times.ratios) - 1, 0, -1):
        grows = rate * times.of(largest, level) > BUSY * largest
        within = budget.planned * (1 if len(ages) < 2 else CLEARED_GROWING if grows else CLEARED)
        if times.of(size, level) + reserve <= budget.planned and latest(times, level, ages, largest) <= within:
            return level
    return 0


def settled(state: State, level: int) -> State:
    """Return the state after a batch that allows `level`: lower at once, higher by one step after `CALM` batches."""
    if level <= state.level:
        return dataclasses.replace(state, level=level, calm=0)
    if state.calm + 1 < CALM:
        return dataclasses.replace(state, calm=state.calm + 1)
    return dataclasses.replace(state, level=state.level + 1, calm=0)


def corrected(state: State, predicted: float, actual: float) -> State:
    """Return the state after a run that took `actual` seconds instead of the `predicted` ones, which were measured."""
    return dataclasses.replace(state, recent=(*state.recent[1:], actual / predicted))


def admits(times: Times, budget: Budget, ages: Sequence[float], images: int, remaining: float) -> bool:
    """Return whether all waiting images and `images` more are in time at level 0, after `remaining` seconds of a run.

    If no image waits, the new ones are always admitted: asking again would not get an answer sooner.
    """
    whole = [*ages, *[0.0] * images]
    return not ages or remaining + latest(times, 0, whole, largest_batch(times, budget)) <= ADMITTED * budget.target
