"""Lanes of several callers, with lanes that compute nothing."""

from __future__ import annotations

import contextlib
import threading

import pytest

from evodeploy.engines.tensorrt.lane_pool import LanePool


class Lane:
    def __init__(self, problem=None):
        self.problem, self.closed = problem, False

    def close(self):
        self.closed = True
        if self.problem is not None:
            raise self.problem


def in_time(work):
    """Do `work` in a thread of its own, which must come to an end."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive(), "waits for ever"


def test_no_thread_waits_for_a_lane_that_cannot_be_closed():
    lanes = [Lane(RuntimeError("the memory is not freed")), Lane()]
    pool = LanePool(iter(lanes).__next__, 1)
    with pytest.raises(RuntimeError, match="not freed"), pool.working():
        raise ValueError

    def again():
        with pool.working() as lane:
            assert lane is lanes[1]

    in_time(again)
    in_time(pool.close)
    assert lanes[1].closed


def test_all_lanes_are_closed_though_one_of_them_fails():
    lanes = [Lane(), Lane(RuntimeError("the memory is not freed")), Lane(RuntimeError("nor is this"))]
    pool = LanePool(iter(lanes).__next__, 3)
    with contextlib.ExitStack() as busy:
        for park in (True, False, False):
            busy.enter_context(pool.working(park=park))
    with pytest.raises(RuntimeError):
        pool.close()
    assert [lane.closed for lane in lanes] == [True] * 3
