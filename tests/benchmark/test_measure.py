from __future__ import annotations

import numpy as np
import pytest

from evodeploy.benchmark.measure import interleaved as measure
from evodeploy.benchmark.measure.interleaved import TIMED, Budget, RunTimes, Stream, measured, wall_clock
from evodeploy.errors import UsageError

IMAGES = np.zeros((1, 3, 2, 2), np.float32)
SHORT = Budget(seconds=0, rounds=6, min_seconds=0, warmup_seconds=0)


@pytest.fixture
def clock(monkeypatch):
    """A clock that only running candidates moves, in binary fractions so that sums are exact."""
    now = [0.0]
    monkeypatch.setattr(measure.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(measure.time, "sleep", lambda seconds: None)
    return now


def candidate(clock, log, name, *seconds):
    """Takes `seconds` in turn, the last of them for ever."""
    durations = list(seconds)

    def run(images):
        assert images is IMAGES
        log.append(name)
        clock[0] += durations.pop(0) if len(durations) > 1 else durations[0]

    return run


def in_turn(runs, budget):
    return measured([wall_clock(run, IMAGES) for run in runs], budget).timings


def alternating(clock, *seconds, asking=1.0):
    """A device's clock that shows `seconds` over and over, and takes `asking` seconds each time."""
    shown = [0]

    def run():
        clock[0] += asking
        shown[0] += 1
        return seconds[shown[0] % len(seconds)]

    return run


def test_candidates_run_in_turn_after_warming_up(clock):
    log = []
    runs = [candidate(clock, log, "A", 0.5), candidate(clock, log, "B", 0.25)]
    timings = in_turn(runs, SHORT)
    assert "".join(log) == "AAAABBBB" + "AB" * 6
    assert [timing.samples for timing in timings] == [(0.5,) * 6, (0.25,) * 6]


def test_warm_up_lasts_its_time_and_is_not_counted(clock):
    run = candidate(clock, [], "A", 8.0, 0.25)
    (timing,) = in_turn([run], Budget(0, 6, min_seconds=0, warmup_seconds=2))
    assert timing.warmup == (8.0,) + (0.25,) * 8
    assert timing.samples == (0.25,) * 6
    assert timing.settled


def test_warm_up_lasts_while_runs_get_faster(clock):
    falling = [2.0 - 0.125 * i for i in range(8)]
    run = candidate(clock, [], "A", 4.0, *falling, 1.0)
    (timing,) = in_turn([run], Budget(0, 6, min_seconds=0, warmup_seconds=2))
    assert timing.warmup[1:] == (*falling, 1.0, 1.0, 1.0)
    assert timing.settled


def test_warm_up_ends_though_runs_get_faster_for_ever(clock):
    run = candidate(clock, [], "A", 4.0, *(2.0**-i for i in range(40)))
    (timing,) = in_turn([run], Budget(0, 6, min_seconds=0, warmup_seconds=0.125))
    assert not timing.settled
    assert "still getting faster after the warm-up" in timing.warnings


def test_steady_runs_stop_once_the_least_time_is_over(clock):
    runs = [candidate(clock, [], "A", 0.25), candidate(clock, [], "B", 0.75)]
    timings = in_turn(runs, Budget(seconds=100, rounds=6, min_seconds=4, warmup_seconds=0))
    assert [len(timing.samples) for timing in timings] == [8, 8]


def test_it_says_whether_the_medians_are_precise_or_the_time_is_spent(clock):
    budget = Budget(seconds=30, rounds=6, precision=0.02, min_seconds=0, warmup_seconds=0)
    precise = measured([alternating(clock, 1.0)], budget)
    assert (precise.stopped, len(precise.timings[0].samples)) == ("precise", 6)
    spent = measured([alternating(clock, 1.0), alternating(clock, 0.5, 1.5)], budget)
    assert spent.stopped == "time"
    assert len(spent.timings[0].samples) == 30
    assert measured([alternating(clock, 0.995, 1.005)], budget).stopped == "precise"


def test_the_time_that_is_spent_is_that_of_asking_a_device_and_not_what_its_clock_says(clock):
    budget = Budget(seconds=30, rounds=6, precision=0.02, min_seconds=0, warmup_seconds=0)
    many_in_a_row = measured([alternating(clock, 0.5, 1.5, asking=4.0)], budget)
    assert len(many_in_a_row.timings[0].samples) == 8


class Pipeline:
    """The first `in_flight` batches take a second each to come out, the next a quarter, the last ones half a second."""

    def __init__(self, clock):
        self.clock = clock

    def run_many(self, batches, in_flight, keep):
        count = len(list(batches))
        for number in range(1, count + 1):
            self.clock[0] += 1.0 if number <= in_flight else 0.25 if number <= count - in_flight + 1 else 0.5
            yield {"logits": number}


@pytest.mark.parametrize("in_flight", [1, 2, 3])
def test_a_stream_is_timed_while_all_are_in_flight(clock, in_flight):
    stream = Stream(Pipeline(clock), IMAGES, in_flight)
    assert [stream(), stream()] == [0.25, 0.25]
    assert stream.outputs == {"logits": stream.batches}
    assert stream.batches == TIMED + 2 * in_flight - 1


def test_figures_of_a_timing():
    timing = RunTimes(samples=(1.0, 2.0, 3.0, 4.0, 5.0), warmup=())
    assert timing.median == 3.0
    assert timing.p90 == pytest.approx(4.6)
    assert timing.p99 == pytest.approx(4.96)
    assert timing.spread == pytest.approx(2 / 3)
    assert timing.cv == pytest.approx(np.std(timing.samples, ddof=1) / 3)
    assert timing.drift == pytest.approx(4.5 / 1.5 - 1)


def test_drift_and_variation_are_warned_of():
    assert RunTimes((1.0, 1.01) * 20, ()).warnings == ()
    (varying,) = RunTimes((1.0, 1.5, 1.25) * 20, ()).warnings
    assert varying == "runs vary by 16% (standard deviation over mean)"
    (drifting,) = RunTimes(tuple(1 + i / 400 for i in range(60)), ()).warnings
    assert drifting == "runs slow down by 10% while measured"


def test_what_no_measurement_can_keep_to_is_refused():
    with pytest.raises(UsageError, match="5 rounds are too few"):
        Budget(rounds=5)
    with pytest.raises(UsageError, match="the minimum of 2 s is above the maximum of 1 s"):
        Budget(seconds=1, min_seconds=2)
