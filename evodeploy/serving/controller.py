"""The budget of a running worker: which requests wait, which run, and how many tokens the next batch keeps."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from evodeploy.engines.base import Engine
from evodeploy.errors import UnavailableError
from evodeploy.preprocess import as_input, random_pictures
from evodeploy.serving import budget as plan
from evodeploy.serving.budget import Budget, State, Times

COMING = 100  # images at least from whose arrivals the rate is computed
RUNS = 3  # runs of each batch and ratio at the start, after one that is not counted


class BusyError(UnavailableError):
    """A request cannot be answered in time."""


@dataclass(frozen=True, eq=False)
class Waiting:
    """Images of one request that have waited since `arrived`, by the controller's clock."""

    images: int
    arrived: float


class Controller:
    """Keeps one worker within its budget. Threads may share it."""

    def __init__(self, budget: Budget, times: Times, clock: Callable[[], float] = time.monotonic) -> None:
        plan.check_target(times, budget)
        self._budget, self._times, self._clock = budget, times, clock
        self._state = State(len(times.ratios) - 1)
        self._lock = threading.Lock()
        self._waiting: set[Waiting] = set()
        self._came = deque([(clock(), 0)])  # when requests entered, the oldest first, and the images until then
        self._ends = 0.0  # when the current run will be over

    @property
    def largest(self) -> int:
        """The most images to run together now."""
        with self._lock:
            return plan.largest_batch(self._slowed, self._budget)

    def patience(self, most: float) -> float:
        """Return the seconds that an image may now wait for others to run with it, up to `most`."""
        with self._lock:
            return min(most, plan.patience(self._slowed, self._budget))

    def check_room(self, images: int) -> None:
        """Raise BusyError if `images` more could not be answered in time, even at the lowest ratio."""
        with self._lock:
            self._check_room(images)

    def enter(self, images: int, arrived: float) -> Waiting:
        """Add waiting images. Raises the same error as `check_room`."""
        with self._lock:
            self._check_room(images)
            entry = Waiting(images, arrived)
            self._waiting.add(entry)
            entered = self._came[-1][1] + images
            self._came.append((self._clock(), entered))
            while entered - self._came[1][1] >= COMING:
                self._came.popleft()
        return entry

    def leave(self, entry: Waiting) -> None:
        """Remove a request that nobody waits for any more. May be called twice."""
        with self._lock:
            self._waiting.discard(entry)

    def begin(self) -> float:
        """Choose the keep ratio of the batch that begins now, whose images still count as waiting."""
        with self._lock:
            level = plan.possible(self._slowed, self._budget, self._ages, self._rate)
            self._state = plan.settled(self._state, level)
            return self._times.ratios[self._state.level]

    def running(self, images: int, ratio: float, entries: Sequence[Waiting]) -> None:
        """Note that a run of `images` images begins. The requests in `entries` no longer wait."""
        with self._lock:
            self._waiting.difference_update(entries)
            self._ends = self._clock() + self._state.slower * self._predicted(images, ratio)

    def ran(self, images: int, ratio: float, seconds: float) -> None:
        """Note that this run is over, and how long it took, unless its ratio is outside of the budget."""
        with self._lock:
            if self._times.ratios[0] <= ratio <= self._times.ratios[-1]:
                self._state = plan.corrected(self._state, self._predicted(images, ratio), seconds)
            self._ends = 0.0

    def failed(self) -> None:
        """Note that this run is over without a result. It does not show how long runs take."""
        with self._lock:
            self._ends = 0.0

    def at_least(self, floor: float) -> float:
        """Return the lowest ratio of the budget that is not below `floor`, or its highest if there is none."""
        return next((ratio for ratio in self._times.ratios if ratio >= floor), self._times.ratios[-1])

    @property
    def _slowed(self) -> Times:
        return self._times.slowed(self._state.slower)

    @property
    def _rate(self) -> float:
        """Images that arrive per second, without refused ones; 0 before `COMING` have arrived or if no time has passed.

        The images of the oldest request do not count, however many there are: they arrived in the time before it.
        """
        since, before = self._came[0]
        images, seconds = self._came[-1][1] - before, self._clock() - since
        return images / seconds if images >= COMING and seconds > 0 else 0.0

    @property
    def _ages(self) -> list[float]:
        now = self._clock()
        return sorted((now - each.arrived for each in self._waiting for _ in range(each.images)), reverse=True)

    def _predicted(self, images: int, ratio: float) -> float:
        """Seconds of a run as measured, interpolated for a ratio between two that were measured."""
        seconds = [self._times.of(images, level) for level in range(len(self._times.ratios))]
        return float(np.interp(ratio, self._times.ratios, seconds))

    def _check_room(self, images: int) -> None:
        ages, remaining = self._ages, max(0.0, self._ends - self._clock())
        if not plan.admits(self._slowed, self._budget, ages, images, remaining):
            within = f"{plan.ADMITTED:.0%} of {self._budget.target * 1000:g} ms"
            raise BusyError(
                f"{len(ages)} images wait, and with this one not all would be answered within {within}: try again"
            )


def batches_of(engine: Engine, largest: int, every: bool = False) -> list[int]:
    """Return the batch sizes in which `engine` runs 1, 2, 4, … and `largest` images, or `every` number up to that."""
    images = range(1, largest + 1) if every else {*(1 << power for power in range(largest.bit_length())), largest}
    return sorted({engine.next_batch(each) for each in images})


def measured(engine: Engine, budget: Budget, largest: int) -> Times:
    """Measure runs of `batches_of(engine, largest)` images at the ratios of `budget`: the shortest of `RUNS`.

    Numbers of images that the engine takes no batch of are filled up to the next that it takes. The last batch before
    such a gap is measured too, and the first number in it. The machine may be busy with other work at the start.
    How much slower runs are later is measured while they serve.

    Raises UsageError if the artefact is not elastic, or not elastic to these ratios.
    """
    info = engine.info
    assert info is not None
    keeps = [info.keep_of(ratio) for ratio in budget.ratios]
    sizes = batches_of(engine, largest)
    ends = [each for each in range(1, sizes[-1]) if engine.takes(each) and not engine.takes(each + 1)]
    images = sorted({*sizes, *(each for end in ends for each in (end, end + 1, engine.next_batch(end + 1)))})
    rows = {}
    for size in dict.fromkeys(map(engine.next_batch, images)):
        batch = as_input(random_pictures(info, size), info)
        row = []
        for keep in keeps:
            engine.run(batch, keep)
            seconds = []
            for _ in range(RUNS):
                began = time.perf_counter()
                engine.run(batch, keep)
                seconds.append(time.perf_counter() - began)
            row.append(min(seconds))
        rows[size] = row
    return plan.times_of(images, budget.ratios, [rows[engine.next_batch(each)] for each in images])
