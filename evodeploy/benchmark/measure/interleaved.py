"""Interleaved timing: every round runs each candidate once, so that a slower machine affects all of them."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from evodeploy.benchmark.measure.intervals import FEWEST, Interval, median_interval, quantile, trend_probability
from evodeploy.engines.base import Array, Engine
from evodeploy.errors import UsageError

BATCHES = (1, 8, 32)  # default batch sizes
SETTLE = 0.002  # seconds between candidates, until the worker threads of the previous one stop spinning
STABLE = 0.02  # warm if two more runs do not lower the minimum by more than this share
TIMED = 8  # consecutive batches of a stream
PATIENCE = 10  # multiple of the warm-up time, after which a candidate that is still getting faster is measured anyway

# A timing above these is unstable: its standard deviation relative to its mean, and its drift from start to end.
LARGEST_CV = 0.1
LARGEST_DRIFT = 0.05

Clock = Callable[[], float]  # runs a candidate, once or several times in a row, and returns the seconds per run
Stop = Literal["precise", "time"]


@dataclass(frozen=True)
class Budget:
    """When measuring ends. Times are in seconds per candidate: of the warm-up for each, of the rest on average.

    It ends after `rounds` rounds and `min_seconds`, once every median is known to `precision` (the width of its 95 %
    interval relative to it), or after `seconds` regardless of that. `rounds` are always run.
    """

    seconds: float = 5.0
    rounds: int = 10
    precision: float = 0.02
    min_seconds: float = 1.0
    warmup_seconds: float = 0.2

    def __post_init__(self) -> None:
        """Check the limits. Raises UsageError if they contradict each other."""
        if self.rounds < FEWEST:
            raise UsageError(f"{self.rounds} rounds are too few for a confidence interval: expected {FEWEST} or more")
        if self.min_seconds > self.seconds:
            raise UsageError(
                f"the minimum of {self.min_seconds:g} s is above the maximum of {self.seconds:g} s: raise the maximum"
            )


@dataclass(frozen=True)
class RunTimes:
    """The seconds of each run of one candidate, in order, and those of its warm-up. `settled` says if it got stable."""

    samples: tuple[float, ...]
    warmup: tuple[float, ...]
    settled: bool = True

    @property
    def median(self) -> float:
        """The median run in seconds."""
        return statistics.median(self.samples)

    @property
    def interval(self) -> Interval:
        """The median in seconds with its 95 % confidence interval."""
        return median_interval(self.samples)

    @property
    def p90(self) -> float:
        """The 90th percentile in seconds."""
        return quantile(self.samples, 0.9)

    @property
    def p99(self) -> float:
        """The 99th percentile in seconds."""
        return quantile(self.samples, 0.99)

    @property
    def spread(self) -> float:
        """The interquartile range of the runs, relative to the median: (Q3 - Q1) / median."""
        return (quantile(self.samples, 0.75) - quantile(self.samples, 0.25)) / self.median

    @property
    def cv(self) -> float:
        """The coefficient of variation: standard deviation over mean."""
        return statistics.stdev(self.samples) / statistics.mean(self.samples)

    @property
    def drift(self) -> float:
        """The slowdown from the first third of the runs to the last, by medians. 0.05 is five per cent."""
        third = math.ceil(len(self.samples) / 3)
        return statistics.median(self.samples[-third:]) / statistics.median(self.samples[:third]) - 1

    @property
    def warnings(self) -> tuple[str, ...]:
        """The reasons not to trust the figures, if any."""
        found = []
        if not self.settled:
            found.append("still getting faster after the warm-up")
        if self.cv > LARGEST_CV:
            found.append(f"runs vary by {self.cv:.0%} (standard deviation over mean)")
        if abs(self.drift) > LARGEST_DRIFT and trend_probability(self.samples) < 0.01:
            found.append(
                f"runs {'slow down' if self.drift > 0 else 'speed up'} by {abs(self.drift):.0%} while measured"
            )
        return tuple(found)


@dataclass(frozen=True)
class Measurement:
    """Timings of all candidates in their order, and why measuring stopped."""

    timings: tuple[RunTimes, ...]
    stopped: Stop


def wall_clock(run: Callable[[Array], object], images: Array) -> Clock:
    """Return a clock that runs `run` on `images` and measures the host's time until it returns."""

    def clock() -> float:
        start = time.perf_counter()
        run(images)
        return time.perf_counter() - start

    return clock


class Stream:
    """A clock of one batch among several in flight, by the host's time. It keeps the last outputs.

    Each call starts and ends with nothing in flight, but times only the part when all of them are: from the end of one
    batch to the end of another, `TIMED` later.
    """

    def __init__(self, engine: Engine, images: Array, in_flight: int, keep: Sequence[int] | None = None) -> None:
        self._engine, self._images, self._in_flight, self._keep = engine, images, in_flight, keep
        self.batches = TIMED + 2 * in_flight - 1
        self.outputs: dict[str, Array] = {}

    def __call__(self) -> float:
        """Return the seconds from one batch to the next."""
        batches = itertools.repeat(self._images, self.batches)
        moments = []
        for outputs in self._engine.run_many(batches, self._in_flight, self._keep):
            moments.append(time.perf_counter())
            self.outputs = outputs
        return (moments[self._in_flight - 1 + TIMED] - moments[self._in_flight - 1]) / TIMED


def measured(clocks: Sequence[Clock], budget: Budget) -> Measurement:
    """Warm up each of `clocks`, then run them in rounds A B C A B C … until `budget` is reached."""
    warmups = [_warm_up(clock, budget.warmup_seconds) for clock in clocks]
    samples: list[list[float]] = [[] for _ in clocks]
    spent, rounds, next_look = 0.0, 0, budget.rounds
    stopped: Stop = "time"
    while rounds < budget.rounds or spent < budget.seconds * len(clocks):
        for clock, taken in zip(clocks, samples, strict=True):
            spent += _taken(clock, taken)
        rounds += 1
        if rounds >= next_look and spent >= budget.min_seconds * len(clocks):
            if all(median_interval(taken).width <= budget.precision for taken in samples):
                stopped = "precise"
                break
            next_look = math.ceil(rounds * 1.1)  # each check sorts all samples
    timings = tuple(
        RunTimes(tuple(taken), tuple(warm), settled) for taken, (warm, settled) in zip(samples, warmups, strict=True)
    )
    return Measurement(timings, stopped)


def _warm_up(clock: Clock, seconds: float) -> tuple[list[float], bool]:
    """Run until `seconds` are over and the minimum stays the same. Returns the runs, and whether it settled."""
    taken = [clock()]  # the first run may compile or allocate, and does not count as warm
    spent = 0.0
    settled = False
    while len(taken) < 4 or spent < (seconds if settled else PATIENCE * seconds):
        spent += _taken(clock, taken)
        warm = taken[1:]
        settled = len(warm) > 2 and min(warm[-2:]) > min(warm[:-2]) * (1 - STABLE)
    return taken, settled


def _taken(clock: Clock, samples: list[float]) -> float:
    """Append the result of `clock` to `samples`. Returns the seconds spent: a sample may cover many runs."""
    time.sleep(SETTLE)
    start = time.perf_counter()
    samples.append(clock())
    return time.perf_counter() - start
