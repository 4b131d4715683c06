"""How many tokens a batch may keep so that every request is answered in time: pure functions on measured run times.

A level is a place in the list of keep ratios: the higher, the more tokens, the slower.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from evodeploy.errors import UsageError

MARGIN = 0.8  # of the target is planned with: the rest is for decoding, HTTP, and runs that take longer than measured
ADMITTED = 0.9  # of the target counts for admission: a refused request is never in time, one that is taken mostly is
CLEARED = 0.6  # of the planned time in which several that wait are to be answered: where several wait, more may come
CLEARED_GROWING = 0.3  # the same where the queue grows; not 0, as clients that wait for answers seem to let it grow
LOW = 0.3  # the least keep ratio, where none is said
LEVELS = 5  # ratios that are measured and chosen among
CALM = 4  # batches in a row that must allow a higher level before it is taken
BUSY = 0.9  # of the time may pass in runs: where images come at a rate that needs more, the queue grows
RECENT = 9  # runs whose median says how much slower runs are than measured: a few odd ones decide nothing


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
        between = (round(self.low + step * level, 4) for level in range(1, LEVELS - 1))
        return (self.low, *(min(max(each, self.low), self.high) for each in between), self.high)


def budget_of(milliseconds: float | None, keep_ratios: tuple[float, float] | None) -> Budget | None:
    """The budget for a target and the lowest and highest ratio; None without a target. Raises UsageError."""
    if milliseconds is not None:
        return Budget(milliseconds / 1000, *(keep_ratios or (LOW,)))
    if keep_ratios is not None:
        raise UsageError("a range of keep ratios is for a target: give --target-p99 too")
    return None


@dataclass(frozen=True)
class Times:
    """Seconds of a run: `seconds[i][j]` of `batches[i]` images at `ratios[j]`; all of them ascend."""

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

    def slowed(self, factor: float) -> Times:
        """The same where each run takes `factor` times as long."""
        return dataclasses.replace(self, seconds=tuple(tuple(factor * each for each in row) for row in self.seconds))


def times_of(batches: Sequence[int], ratios: Sequence[float], seconds: Sequence[Sequence[float]]) -> Times:
    """Times as measured: no run counts as longer than one that has more to do, which shows what held it up."""
    table = [list(row) for row in seconds]
    for i in reversed(range(len(batches))):
        for j in reversed(range(len(ratios))):
            more = [table[i + 1][j]] if i + 1 < len(batches) else []
            more += [table[i][j + 1]] if j + 1 < len(ratios) else []
            table[i][j] = min([table[i][j], *more])
    return Times(tuple(batches), tuple(ratios), tuple(map(tuple, table)))


@dataclass(frozen=True)
class State:
    """The level of the last batch, for how many batches a higher one was possible, and how much slower runs were.

    `recent` has of each of the last runs how many times as long as measured it took.
    """

    level: int
    calm: int = 0
    recent: tuple[float, ...] = (1.0,) * RECENT

    @property
    def slower(self) -> float:
        """How many times as long as measured runs take now."""
        return statistics.median(self.recent)


def check_target(times: Times, budget: Budget) -> None:
    """Raise UsageError where not even the smallest batches are in time."""
    smallest = times.batches[0]
    least = 2 * times.of(smallest, 0)
    if least > budget.planned:
        what = "one image" if smallest == 1 else f"a batch of {smallest} images"
        give = math.ceil(least / MARGIN * 1000)
        raise UsageError(
            f"{what} at keep ratio {times.ratios[0]:g} takes {least * 500:.1f} ms, so a target of "
            f"{budget.target * 1000:g} ms cannot be held: give {give} or more, or a lower ratio"
        )


def largest_batch(times: Times, budget: Budget) -> int:
    """The most images to run at once: who comes as a run begins waits for it, and is run then, both at `low`."""
    sizes = range(times.batches[-1], times.batches[0], -1)
    return next((size for size in sizes if 2 * times.of(size, 0) <= budget.planned), times.batches[0])


def patience(times: Times, budget: Budget) -> float:
    """Seconds that an image may wait for others to run with.

    With a run of all tokens they are the shortest time in which images that wait are to be answered.
    """
    return max(0.0, CLEARED_GROWING * budget.planned - times.of(times.batches[0], len(times.ratios) - 1))


def latest(times: Times, level: int, ages: Sequence[float], largest: int) -> float:
    """The longest seconds from arrival to answer, if all that wait are run now, in batches of `largest`, at a level.

    `ages` has the seconds since the arrival of each image, the oldest first.
    """
    ended = worst = 0.0
    for start in range(0, len(ages), largest):
        batch = ages[start : start + largest]
        ended += times.of(len(batch), level)
        worst = max(worst, batch[0] + ended)
    return worst


def possible(times: Times, budget: Budget, ages: Sequence[float], rate: float) -> int:
    """The highest level at which all that wait are in time, and so is who comes as this batch begins; 0 where none.

    Those that wait are to be in time the sooner where `rate` images a second let the queue grow at that level.
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
    """The state after a batch that allows `level`: lower at once, higher by one step after `CALM` batches."""
    if level <= state.level:
        return dataclasses.replace(state, level=level, calm=0)
    if state.calm + 1 < CALM:
        return dataclasses.replace(state, calm=state.calm + 1)
    return dataclasses.replace(state, level=state.level + 1, calm=0)


def corrected(state: State, predicted: float, actual: float) -> State:
    """The state after a run that was `predicted` to take that many seconds, as measured, and took `actual`."""
    return dataclasses.replace(state, recent=(*state.recent[1:], actual / predicted))


def admits(times: Times, budget: Budget, ages: Sequence[float], images: int, remaining: float) -> bool:
    """Whether, with `images` more, all that wait are in time at the lowest level, after `remaining` seconds of a run.

    Where none wait the images are always taken: none is sooner answered by asking again.
    """
    whole = [*ages, *[0.0] * images]
    return not ages or remaining + latest(times, 0, whole, largest_batch(times, budget)) <= ADMITTED * budget.target
