"""What a GPU takes for a run, without the time that the host takes to enqueue it."""

from __future__ import annotations

import ctypes
import sys
from typing import Protocol

from evodeploy.engines.base import Resident
from evodeploy.errors import RuntimeFailedError

LAUNCHES = 10  # timed in a row at most, as many as trtexec averages over by default
SHORTEST, LONGEST = 0.001, 0.1  # seconds that a stream is held


class Timeline(Protocol):
    """Work in a stream of a GPU between two events."""

    def hold(self, seconds: float) -> None:
        """Let the stream wait for so long before it does what comes next."""

    def start(self) -> None:
        """Record the first event."""

    def launch(self) -> None:
        """Enqueue the work once."""

    def end(self) -> None:
        """Record the second event."""

    def started(self) -> bool:
        """Return whether the first event has happened."""

    def elapsed(self) -> float:
        """Wait for the second event; seconds between the two."""


class GatedClock:
    """Times launches that were all enqueued, while the stream was held, before the first of them began.

    Where that does not succeed it holds the stream longer. After that it launches less often, for a stream takes only
    so much work ahead, and then enqueueing waits. `launches` is how often it does now; `hidden` is false where even a
    single launch began before it was enqueued, so that the host's time may be in the last result.
    """

    def __init__(self, timeline: Timeline) -> None:
        self._timeline, self._held = timeline, SHORTEST
        self.launches = LAUNCHES
        self.hidden = True

    def __call__(self) -> float:
        """Seconds of one launch by the GPU's own clock: the mean of `launches` in a row."""
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
        """Return whether there is anything left to try."""
        if self._held < LONGEST:
            self._held = min(2 * self._held, LONGEST)
            return True
        if self.launches == 1:
            return False
        self.launches //= 2
        self._held = SHORTEST
        return True


class GatedResident(Resident):
    """A batch whose runs are timed by the clock that a subclass sets."""

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
    """Let `stream` wait `seconds` before it does what is put there next; a context is current.

    By a function of the host that sleeps, as trtexec does for --sleepTime. It is the C library's own, for the driver
    calls it in a thread that must not wait for Python. It ends whatever happens to this process's other threads, so a
    stream that takes no more work makes them wait, never forever.
    """
    if sys.platform == "win32":
        driver, sleep, amount = ctypes.CDLL("nvcuda.dll"), ctypes.WinDLL("kernel32").Sleep, seconds * 1e3
    else:
        driver, sleep, amount = ctypes.CDLL("libcuda.so.1"), ctypes.CDLL(None).usleep, seconds * 1e6
    function = ctypes.cast(sleep, ctypes.c_void_p)
    status = driver.cuLaunchHostFunc(ctypes.c_void_p(stream), function, ctypes.c_void_p(int(amount)))
    if status != 0:
        raise RuntimeFailedError(f"the GPU's stream could not be held for timing: cuLaunchHostFunc returned {status}")
