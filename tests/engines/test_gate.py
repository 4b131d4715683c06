"""Timing a GPU's own work, on a stream whose clock is counted and not read."""

from __future__ import annotations

import pytest

from evodeploy.engines.gate import LAUNCHES, LONGEST, SHORTEST, GatedClock

KERNEL = 0.002  # seconds that the device takes for a launch


class Stream:
    """Takes `room` launches ahead; the host needs `enqueueing` seconds for each."""

    def __init__(self, enqueueing, room=1000):
        self.enqueueing, self.room = enqueueing, room
        self.now = 0.0
        self.held = []

    def hold(self, seconds):
        self.held.append(seconds)
        self.free = self.now + seconds
        self.ends = []

    def start(self):
        self.first = self.free

    def launch(self):
        self.now += self.enqueueing
        if len(self.ends) >= self.room:  # until one of those ahead is done
            self.now = max(self.now, self.ends[-self.room])
        self.free = max(self.free, self.now) + KERNEL
        self.ends.append(self.free)

    def end(self):
        pass

    def started(self):
        return self.now >= self.first

    def elapsed(self):
        self.now = self.free
        return self.free - self.first


def test_the_time_of_enqueueing_is_not_in_the_result():
    stream = Stream(enqueueing=0.003)
    clock = GatedClock(stream)
    assert [clock(), clock()] == pytest.approx([KERNEL] * 2)
    assert (clock.launches, clock.hidden) == (LAUNCHES, True)
    assert stream.held == [SHORTEST * 2**step for step in range(6)] + [0.032]  # found once, kept


def test_a_stream_that_takes_less_ahead_gets_less():
    stream = Stream(enqueueing=0.0001, room=3)
    clock = GatedClock(stream)
    assert clock() == pytest.approx(KERNEL)
    assert (clock.launches, clock.hidden) == (2, True)
    assert max(stream.held) == LONGEST


def test_a_run_that_no_gate_hides_is_reported():
    clock = GatedClock(Stream(enqueueing=1.0))
    assert clock() > KERNEL
    assert (clock.launches, clock.hidden) == (1, False)
