"""Interleaved timing: every round runs each candidate once, so that a machine that slows down slows them all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from evodeploy.engines.base import Array

SETTLE = 0.002  # seconds between candidates, for the last one's worker threads to stop spinning


@dataclass(frozen=True)
class Budget:
    """When measuring ends: after `seconds` for each candidate, but not before `rounds`."""

    seconds: float = 3.0
    rounds: int = 5
    warmup_seconds: float = 0.2


@dataclass(frozen=True)
class Timing:
    """Seconds that each run of one candidate took, in order; warm-up runs apart."""

    samples: tuple[float, ...]
    warmup: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median run in seconds."""
        return statistics.median(self.samples)

    @property
    def p90(self) -> float:
        """Nine runs in ten took no longer, in seconds."""
        return statistics.quantiles(self.samples, n=10, method="inclusive")[-1]

    @property
    def spread(self) -> float:
        """The middle half of the runs, relative to the median: (Q3 - Q1) / median."""
        first, _, third = statistics.quantiles(self.samples, n=4, method="inclusive")
        return (third - first) / self.median


def interleaved(runs: Sequence[Callable[[Array], object]], images: Array, budget: Budget) -> list[Timing]:
    """Time each of `runs` on `images`, in rounds A B C A B C …, after warming each up."""
    warmups = [_warm_up(run, images, budget) for run in runs]
    samples: list[list[float]] = [[] for _ in runs]
    spent = 0.0
    while len(samples[0]) < budget.rounds or spent < budget.seconds * len(runs):
        for run, taken in zip(runs, samples, strict=True):
            taken.append(_timed(run, images))
            spent += taken[-1]
    return [Timing(tuple(taken), tuple(warm)) for taken, warm in zip(samples, warmups, strict=True)]


def _warm_up(run: Callable[[Array], object], images: Array, budget: Budget) -> list[float]:
    taken = [_timed(run, images)]  # the first run may compile or allocate, and does not count as warm
    while len(taken) < 2 or sum(taken[1:]) < budget.warmup_seconds:
        taken.append(_timed(run, images))
    return taken


def _timed(run: Callable[[Array], object], images: Array) -> float:
    time.sleep(SETTLE)
    start = time.perf_counter()
    run(images)
    return time.perf_counter() - start
