from __future__ import annotations

import numpy as np
import pytest

from evodeploy.bench import measure
from evodeploy.bench.measure import Budget, Timing, interleaved

IMAGES = np.zeros((1, 3, 2, 2), np.float32)


@pytest.fixture
def clock(monkeypatch):
    """A clock that only running candidates moves, in binary fractions so that sums are exact."""
    now = [0.0]
    monkeypatch.setattr(measure.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(measure.time, "sleep", lambda seconds: None)
    return now


def candidate(clock, log, name, *seconds):
    durations = list(seconds)

    def run(images):
        assert images is IMAGES
        log.append(name)
        clock[0] += durations.pop(0) if len(durations) > 1 else durations[0]

    return run


def test_candidates_run_in_turn_after_warming_up(clock):
    log = []
    runs = [candidate(clock, log, "A", 0.5), candidate(clock, log, "B", 0.25)]
    timings = interleaved(runs, IMAGES, Budget(seconds=0, rounds=3, warmup_seconds=0))
    assert "".join(log) == "AABB" + "ABABAB"
    assert [timing.samples for timing in timings] == [(0.5,) * 3, (0.25,) * 3]


def test_warm_up_lasts_its_time_and_is_not_counted(clock):
    log = []
    (timing,) = interleaved(
        [candidate(clock, log, "A", 8.0, 0.25)], IMAGES, Budget(seconds=0, rounds=2, warmup_seconds=1)
    )
    assert timing.warmup == (8.0, 0.25, 0.25, 0.25, 0.25)
    assert timing.samples == (0.25, 0.25)


def test_measuring_goes_on_until_the_time_is_spent(clock):
    log = []
    runs = [candidate(clock, log, "A", 0.25), candidate(clock, log, "B", 0.75)]
    first, second = interleaved(runs, IMAGES, Budget(seconds=2, rounds=2, warmup_seconds=0))
    assert len(first.samples) == len(second.samples) == 4


def test_figures_of_a_timing():
    timing = Timing(samples=(1.0, 2.0, 3.0, 4.0, 5.0), warmup=())
    assert timing.median == 3.0
    assert timing.p90 == pytest.approx(4.6)
    assert timing.spread == pytest.approx(2 / 3)
