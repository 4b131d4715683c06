"""Measurement of a run's time on the GPU, without the time that the host takes to enqueue it."""

from __future__ import annotations

import ctypes
import sys
from typing import Protocol

from evodeploy.engines.base import Resident
from evodeploy.errors import RuntimeFailedError

LAUNCHES = 10  # at most, in a row; trtexec averages over as many by default
SHORTEST, LONGEST = 0.001, 0.1  # seconds for which a stream is held


class Timeline(Protocol):
    """Work in a GPU stream between two events."""

    def hold(self, seconds: float) -> None:
        """Make the stream wait `seconds` before the work that follows."""

    def start(self) -> None:
        """Record the first event."""

    def launch(self) -> None:
        """Enqueue the work once."""

    def end(self) -> None:
        """Record the second event."""

    def started(self) -> bool:
        """Return whether the first event has happened."""

    def elapsed(self) -> float:
        """Wait for the second event, and return the seconds between the two."""


class GatedClock:
    """Times launches that were all enqueued, while the stream was held, before the first of them began.

    If that does not succeed, it holds the stream longer. After that it launches less often, because a stream queues
    only a limited amount of work and enqueueing then blocks. `launches` is the current number of launches. `hidden` is
    False if even a single launch began before it was enqueued, so that the last result may contain time of the host.
    """

    def __init__(self, timeline: Timeline) -> None:
        self._timeline, self._held = timeline, SHORTEST
        self.launches = LAUNCHES
        self.hidden = True

    def __call__(self) -> float:
        """Return the seconds of one launch by the GPU's own clock: the mean of `launches` in a row."""
        while True:
            self._timeline.hold(self._held)
            self._timeline.start()
            for _ in range(self.launches):
                self._timeline.launch()
            self._timeline.end()
            self.hidden = not self._timeline.started()
            seconds = self._timeline.elapsed() / self.launches
            if self.hidden or not self._try_harder():
                return seconds

    def _try_harder(self) -> bool:
        """Change the settings for another attempt. Returns False if there is nothing left to try."""
        if self._held < LONGEST:
            self._held = min(2 * self._held, LONGEST)
            return True
        if self.launches == 1:
            return False
        self.launches //= 2
        self._held = SHORTEST
        return True


class GatedResident(Resident):
    """A batch whose runs are timed by a clock that a subclass sets."""

    _clock: GatedClock

    @property
    def launches(self) -> int:
        """See Resident."""
        return self._clock.launches

    @property
    def hidden(self) -> bool:
        """See Resident."""
        return self._clock.hidden


def hold(stream: int, seconds: float) -> None:
    """Make `stream` wait `seconds` before the work that is enqueued next. A CUDA context must be current.

    The stream calls a host function that sleeps, as trtexec does for --sleepTime. It is the function of the C library,
    because the driver calls it in a thread that must not wait for Python. The sleep ends whatever the other threads of
    this process do, so a stream whose queue is full blocks them for a limited time only.
    """
    if sys.platform == "win32":
        driver, sleep, amount = ctypes.CDLL("nvcuda.dll"), ctypes.WinDLL("kernel32").Sleep, seconds * 1e3
    else:
        driver, sleep, amount = ctypes.CDLL("libcuda.so.1"), ctypes.CDLL(None).usleep, seconds * 1e6
    function = ctypes.cast(sleep, ctypes.c_void_p)
    status = driver.cuLaunchHostFunc(ctypes.c_void_p(stream), function, ctypes.c_void_p(int(amount)))
    if status != 0:
        raise RuntimeFailedError(f"the GPU's stream could not be held for timing: cuLaunchHostFunc returned {status}")
