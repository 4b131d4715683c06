"""Functions timed in turn on the same images, for the scripts in this folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from evodeploy.benchmark.measure.interleaved import Budget, RunTimes, measured, wall_clock
from evodeploy.engines.base import Array


def interleaved(runs: Sequence[Callable[[Array], object]], images: Array, budget: Budget) -> list[RunTimes]:
    """Time each of `runs` on the same `images` in turn by the host's time, as `measured` does."""
    return list(measured([wall_clock(run, images) for run in runs], budget).timings)
