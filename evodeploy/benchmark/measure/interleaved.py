"""Interleaved timing: every round runs each candidate once, so that a machine that slows down slows them all."""

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

BATCHES = (1, 8, 32)  # batch sizes, unless others are asked for
SETTLE = 0.002  # seconds between candidates, for the last one's worker threads to stop spinning
STABLE = 0.02  # warm: when two more runs do not lower the fastest by more than this share
TIMED = 8  # batches in a row, of a stream of them
PATIENCE = 10  # times the warm-up's time, after which a candidate that still gets faster is measured as it is

# What makes a timing unstable: its standard deviation relative to its mean, and how far it drifts from start to end.
LARGEST_CV = 0.1
LARGEST_DRIFT = 0.05

Clock = Callable[[], float]  # runs a candidate, once or in a row, and returns the seconds that one run took
Stop = Literal["precise", "time"]


@dataclass(frozen=True)
class Budget:
    """When measuring ends; times are in seconds of each candidate.

    After `rounds` rounds and `min_seconds`, once every median is known to `precision` (the width of its 95 % interval,
    relative to it), or after `seconds` however wide they are. `rounds` are always run.
    """

    seconds: float = 5.0
    rounds: int = 10
    precision: float = 0.02
    min_seconds: float = 1.0
    warmup_seconds: float = 0.2

    def __post_init__(self) -> None:
        """Refuse what no measurement can keep to: raises UsageError."""
        if self.rounds < FEWEST:
            raise UsageError(f"{self.rounds} rounds are too few for a confidence interval: expected {FEWEST} or more")
        if self.min_seconds > self.seconds:
            raise UsageError(f"at least {self.min_seconds:g} s of at most {self.seconds:g} s: raise the latter")


@dataclass(frozen=True)
class RunTimes:
    """Seconds that each run of one candidate took, in order; without warm-up runs, and whether they became stable."""

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
        """Nine runs in ten took no longer, in seconds."""
        return quantile(self.samples, 0.9)

    @property
    def p99(self) -> float:
        """Ninety-nine runs in a hundred took no longer, in seconds."""
        return quantile(self.samples, 0.99)

    @property
    def spread(self) -> float:
        """The middle half of the runs, relative to the median: (Q3 - Q1) / median."""
        return (quantile(self.samples, 0.75) - quantile(self.samples, 0.25)) / self.median

    @property
    def cv(self) -> float:
        """The coefficient of variation: standard deviation over mean."""
        return statistics.stdev(self.samples) / statistics.mean(self.samples)

    @property
    def drift(self) -> float:
        """How much slower the last third of the runs was than the first, by medians; 0.05 is five per cent."""
        third = math.ceil(len(self.samples) / 3)
        return statistics.median(self.samples[-third:]) / statistics.median(self.samples[:third]) - 1

    @property
    def warnings(self) -> tuple[str, ...]:
        """Why the figures should not be trusted, if they should not."""
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
    """A clock of `run` on `images` by this host's own time, what it returns included."""

    def clock() -> float:
        start = time.perf_counter()
        run(images)
        return time.perf_counter() - start

    return clock


class Stream:
    """A clock of one batch among several that are in flight, by this host's time; keeps the last outputs.

    Each call starts with none and ends with none in flight, but is timed only while all of them are: from the end of
    one batch to the end of another, `TIMED` later.
    """

    def __init__(self, engine: Engine, images: Array, in_flight: int, keep: Sequence[int] | None = None) -> None:
        self._engine, self._images, self._in_flight, self._keep = engine, images, in_flight, keep
        self.batches = TIMED + 2 * in_flight - 1
        self.outputs: dict[str, Array] = {}

    def __call__(self) -> float:
        """Seconds from one batch to the next."""
        batches = itertools.repeat(self._images, self.batches)
        moments = []
        for outputs in self._engine.run_many(batches, self._in_flight, self._keep):
            moments.append(time.perf_counter())
            self.outputs = outputs
        return (moments[self._in_flight - 1 + TIMED] - moments[self._in_flight - 1]) / TIMED


def interleaved(runs: Sequence[Callable[[Array], object]], images: Array, budget: Budget) -> list[RunTimes]:
    """Time each of `runs` on the same `images` by the host's time, as `measured` does."""
    return list(measured([wall_clock(run, images) for run in runs], budget).timings)


def measured(clocks: Sequence[Clock], budget: Budget) -> Measurement:
    """Warm each of `clocks` up, then run them in rounds A B C A B C … until `budget` says enough."""
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
            next_look = math.ceil(rounds * 1.1)  # looking sorts all samples
    timings = tuple(
        RunTimes(tuple(taken), tuple(warm), settled) for taken, (warm, settled) in zip(samples, warmups, strict=True)
    )
    return Measurement(timings, stopped)


def _warm_up(clock: Clock, seconds: float) -> tuple[list[float], bool]:
    """Run until `seconds` are over and the fastest run stays the fastest; the runs, and whether that was reached."""
    taken = [clock()]  # the first run may compile or allocate, and does not count as warm
    spent = 0.0
    settled = False
    while len(taken) < 4 or spent < (seconds if settled else PATIENCE * seconds):
        spent += _taken(clock, taken)
        warm = taken[1:]
        settled = len(warm) > 2 and min(warm[-2:]) > min(warm[:-2]) * (1 - STABLE)
    return taken, settled


def _taken(clock: Clock, samples: list[float]) -> float:
    """Add what `clock` says to `samples`, and return the seconds that asking it took: a sample may be of many runs."""
    time.sleep(SETTLE)
    start = time.perf_counter()
    samples.append(clock())
    return time.perf_counter() - start
