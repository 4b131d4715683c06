"""The budget of tokens, on recorded run times and a clock that only the test moves."""

from __future__ import annotations

import dataclasses
import math
import re
import types

import numpy as np
import pytest
from fake_engines import FakeEngine

from evodeploy.elastic import ElasticStage
from evodeploy.errors import UsageError
from evodeploy.serving import budget as plan
from evodeploy.serving.budget import Budget, State, Times, budget_of
from evodeploy.serving.controller import COMING, BusyError, Controller, measured
from evodeploy.specs import BatchRange, ModelInfo

# Evo-DeiT-S, OpenVINO BF16 on two cores: 86, 121 and 147 images a second at keep 1, 0.5 and 0.3, single ones slower.
RATIOS = (0.3, 0.475, 0.65, 0.825, 1.0)
EACH = (1 / 147, 1 / 123, 1 / 110, 1 / 97, 1 / 86)
TIMES = Times((1, 2, 4, 8, 16), RATIOS, tuple(tuple(0.002 + n * each for each in EACH) for n in (1, 2, 4, 8, 16)))
DENSE = 16 / TIMES.of(16, 4)  # images a second
BUDGET = Budget(0.25, 0.3)
SIX = [0.0] * 6  # the ages of six that wait


@dataclasses.dataclass
class Clock:
    now: float = 0.0

    def __call__(self):
        return self.now


@dataclasses.dataclass
class Simulated:
    """What became of the requests of a simulation: seconds of each answer, the ratio of each, and who was refused."""

    seconds: list[float]
    ratios: list[float]
    refused: list[float]

    @property
    def in_time(self):
        return sum(each <= BUDGET.target for each in self.seconds) / len(self.seconds)


def simulate(arrivals, slower=1.0, only=None, stalls=0.0, measured=TIMES):
    """Single images at these times through a controller, or at the level `only` without one.

    Runs take `slower` times `TIMES`, vary by a tenth, and a share of them, `stalls`, takes four times as long.
    """
    clock, varied = Clock(), np.random.default_rng(4)
    controller = Controller(BUDGET, measured, clock)
    waiting, coming, run = [], list(arrivals), Simulated([], [], [])

    def come(until):
        while coming and coming[0] <= until:
            clock.now = coming.pop(0)
            if only is not None:
                waiting.append((clock.now, None))
                continue
            try:
                waiting.append((clock.now, controller.enter(1, clock.now)))
            except BusyError:
                run.refused.append(clock.now)

    while coming or waiting:
        if not waiting:
            come(max(clock.now, coming[0]))
            continue
        batch = waiting[: controller.largest]
        ratio = RATIOS[only] if only is not None else controller.begin()
        del waiting[: len(batch)]
        began = clock.now
        controller.running(len(batch), ratio, [entry for _, entry in batch])
        took = TIMES.of(len(batch), RATIOS.index(ratio)) * slower * (1 + 0.1 * varied.uniform(-1, 1))
        took *= 4 if varied.random() < stalls else 1
        come(began + took)
        clock.now = began + took
        controller.ran(len(batch), ratio, took)
        run.seconds += [clock.now - arrived for arrived, _ in batch]
        run.ratios += [ratio] * len(batch)
    return run


def poisson(rate, seconds, seed=1):
    gaps = np.random.default_rng(seed).exponential(1 / rate, int(rate * seconds))
    return np.cumsum(gaps).tolist()


def test_an_idle_server_keeps_all_tokens():
    run = simulate(poisson(0.3 * DENSE, 60))
    assert run.refused == []
    assert set(run.ratios) == {1.0}
    assert run.in_time == 1


def test_above_the_dense_capacity_it_spends_fewer_tokens_and_stays_in_time():
    arrivals = poisson(1.3 * DENSE, 60)
    run = simulate(arrivals)
    assert run.in_time >= 0.99
    assert len(run.refused) < 0.01 * len(arrivals)
    assert 0.3 < np.mean(run.ratios) < 0.9
    dense = simulate(arrivals, only=4)
    assert dense.in_time < 0.1  # its queue grows without an end


def test_at_one_and_a_half_times_the_dense_capacity_hardly_any_is_refused():
    """The queue would be full now and then if tokens were spent until it is: the rate says it sooner."""
    arrivals = poisson(1.5 * DENSE, 120)
    run = simulate(arrivals)
    assert run.in_time >= 0.99
    assert len(run.refused) < 0.004 * len(arrivals)


def test_those_that_wait_are_to_be_in_time_the_sooner_where_the_queue_grows():
    sustained = plan.BUSY * 16 / TIMES.of(16, 3)
    assert plan.possible(TIMES, BUDGET, SIX, 0.0) == 4
    assert plan.possible(TIMES, BUDGET, SIX, 0.99 * sustained) == 3
    assert plan.possible(TIMES, BUDGET, SIX, 1.01 * sustained) == 2  # 59 ms are within 30 % of the 200 planned, 64 not
    assert plan.possible(TIMES, BUDGET, [0.0], 1e9) == 4


def ratio_for_six(controller, clock):
    entries = [controller.enter(1, clock.now) for _ in SIX]
    ratio = [controller.begin() for _ in range(5 * plan.CALM)][-1]
    for entry in entries:
        controller.leave(entry)
    return ratio


def test_the_rate_is_that_of_the_last_arrivals_and_falls_while_none_come():
    clock = Clock()
    controller = Controller(BUDGET, TIMES, clock)

    def settled_after(images, gap):
        for _ in range(images):
            clock.now += gap
            controller.leave(controller.enter(1, clock.now))
        return ratio_for_six(controller, clock)

    assert settled_after(COMING, 1 / DENSE) < 1  # as fast as the dense network answers
    clock.now += 100
    assert settled_after(0, 0.0) == 1
    assert settled_after(COMING + 1, 1 / DENSE) < 1  # what came before the 100 s counts no more
    assert settled_after(COMING + 1, 0.0) == 1  # all at one reading of the clock: no rate is known


@pytest.mark.parametrize("images", [1, 16, 64, 128])
@pytest.mark.parametrize(("share", "all_tokens"), [(0.75, True), (1.5, False)])
def test_the_rate_is_of_images_however_many_a_request_has(images, share, all_tokens):
    clock = Clock()
    controller = Controller(BUDGET, TIMES, clock)
    for _ in range(3 * 128 // images):
        clock.now += images / (share * DENSE)
        controller.leave(controller.enter(images, clock.now))
    clock.now += 1e-6
    assert (ratio_for_six(controller, clock) == 1) == all_tokens


def test_clients_that_wait_for_their_answers_keep_all_tokens():
    """Four fill the whole time with runs, but no queue grows: each asks again only when it has its answer."""
    clock, ratios = Clock(), set()
    controller = Controller(BUDGET, TIMES, clock)
    for _ in range(200):
        entries = [controller.enter(1, clock.now) for _ in range(4)]
        ratio = controller.begin()
        controller.running(4, ratio, entries)
        clock.now += TIMES.of(4, RATIOS.index(ratio))
        controller.ran(4, ratio, TIMES.of(4, RATIOS.index(ratio)))
        ratios.add(ratio)
    assert ratios == {1.0}


def test_a_burst_is_answered_in_time_at_fewer_tokens():
    burst = [10 + 0.001 * n for n in range(15)] + [10.1 + 0.001 * n for n in range(9)]
    run = simulate(sorted(poisson(0.3 * DENSE, 20) + burst))
    assert run.refused == []
    assert run.in_time == 1
    assert min(run.ratios) < 1
    assert run.ratios[-1] == 1.0  # and afterwards all is as before


def test_a_ramp_to_three_times_the_dense_capacity_is_refused_only_below_the_lowest_ratio():
    rates = [DENSE * (0.2 + 2.8 * second / 60) for second in range(60)]
    arrivals = [now for second, rate in enumerate(rates) for now in np.arange(second, second + 1, 1 / rate)]
    run = simulate(arrivals)
    assert run.in_time >= 0.99
    lowest = 16 / TIMES.of(16, 0)
    reached = next(second for second in range(60) if rates[second] > lowest)
    assert run.refused
    assert sum(now < reached - 1 for now in run.refused) < 0.01 * len(arrivals)
    assert np.mean(run.ratios[-200:]) < 0.4


def test_runs_that_are_slower_than_measured_are_planned_for():
    run = simulate(poisson(0.9 * DENSE, 60), slower=1.3)
    assert run.in_time >= 0.99
    assert np.mean(run.ratios) < 0.9


def test_at_a_fifth_of_the_capacity_of_a_machine_that_is_slower_than_measured_none_is_refused():
    """A batch of the size that was planned at the start does not fit into the target any more."""
    run = simulate(poisson(0.2 * DENSE, 60), slower=3)
    assert run.refused == []
    assert run.in_time >= 0.99
    assert np.mean(run.ratios) > 0.7


def test_runs_that_are_held_up_now_and_then_cost_the_others_no_tokens():
    run = simulate(poisson(0.3 * DENSE, 60), stalls=0.05)
    assert run.refused == []
    assert run.in_time >= 0.99
    assert np.mean(run.ratios) > 0.95


def test_times_that_were_measured_while_the_machine_had_other_work_are_forgotten():
    run = simulate(poisson(0.7 * DENSE, 60), measured=TIMES.slowed(4))
    assert run.refused == []
    assert np.mean(run.ratios) > 0.95


def test_a_run_that_was_held_up_while_it_was_measured_counts_as_no_longer_than_one_that_has_more_to_do():
    times = plan.times_of((1, 2), (0.5, 1.0), [[5.0, 1.0], [2.0, 3.0]])
    assert times == Times((1, 2), (0.5, 1.0), ((1.0, 1.0), (2.0, 3.0)))
    times = plan.times_of((1, 2, 4), (0.3, 0.5, 1.0), [[1.0, 2.0, 3.0], [9.0, 9.0, 9.0], [4.0, 6.0, 8.0]])
    assert times.seconds == ((1.0, 2.0, 3.0), (4.0, 6.0, 8.0), (4.0, 6.0, 8.0))


def test_the_first_that_waits_is_taken_however_long_the_run_is():
    assert plan.admits(TIMES, BUDGET, [], 1, 10.0)
    assert not plan.admits(TIMES, BUDGET, [0.0], 1, 10.0)


def test_who_would_make_others_late_is_refused():
    assert plan.admits(TIMES, BUDGET, [0.15], 8, 0.0)  # answered after 213 ms: 200 are planned, 225 admitted
    assert not plan.admits(TIMES, BUDGET, [0.18], 8, 0.0)
    # Five at once take 36 ms, and 80 ms are planned: those of a second batch are in time, those of a third are not.
    assert plan.admits(TIMES, Budget(0.1, 0.3), [0.0] * 5, 5, 0.0)
    assert not plan.admits(TIMES, Budget(0.1, 0.3), [0.0] * 5, 10, 0.0)


def test_ratios_do_not_flap():
    run = simulate(poisson(1.2 * DENSE, 60))
    ratios = np.array(run.ratios)
    raised = (np.diff(ratios) > 0).sum()
    assert raised < len(ratios) / plan.CALM / 4
    assert max(np.diff(ratios)) <= 0.176  # by one level


@pytest.mark.parametrize(("images", "expected"), [(1, 1), (3, 3), (8, 8), (16, 16), (20, 20), (32, 32), (37, 37)])
def test_run_times_between_and_beyond_what_was_measured(images, expected):
    runs = math.ceil(images / 16)
    assert TIMES.of(images, 4) == pytest.approx(0.002 * runs + expected / 86)
    assert Times((1, 3), (1.0,), ((1.0,), (5.0,))).of(2, 0) == 3.0


def test_the_oldest_of_each_batch_decides():
    assert plan.latest(TIMES, 0, [], 16) == 0
    assert plan.latest(TIMES, 0, [0.5, 0.1], 16) == pytest.approx(0.5 + TIMES.of(2, 0))
    assert plan.latest(TIMES.slowed(2.0), 0, [0.5, 0.49], 1) == pytest.approx(0.49 + 4 * TIMES.of(1, 0))


def test_the_level_falls_at_once_and_rises_by_steps():
    state = plan.settled(State(4), 1)
    assert state == State(1)
    levels = []
    for _ in range(3 * plan.CALM):
        state = plan.settled(state, 3)
        levels.append(state.level)
    assert levels == [1] * (plan.CALM - 1) + [2] * plan.CALM + [3] * (plan.CALM + 1)


def test_a_few_odd_runs_decide_nothing_and_many_do():
    state = State(2, 1)
    for count in range(1, plan.RECENT + 1):
        state = plan.corrected(state, 0.1, 0.3)
        assert (state.level, state.calm, len(state.recent)) == (2, 1, plan.RECENT)
        assert state.slower == pytest.approx(1 if count <= plan.RECENT // 2 else 3)


def test_batches_are_no_larger_than_the_target_allows():
    assert plan.largest_batch(TIMES, Budget(1, 0.3)) == 16
    assert plan.largest_batch(TIMES, Budget(0.1, 0.3)) == 5
    assert plan.largest_batch(TIMES.slowed(10), Budget(0.1, 0.3)) == 1
    with pytest.raises(UsageError, match=r"one image at keep ratio 0.3 takes 8.8 ms, so a target of 10 ms cannot"):
        plan.check_target(TIMES, Budget(0.01, 0.3))
    plan.check_target(TIMES, Budget(0.03, 0.3))


@pytest.mark.parametrize("slower", [1.0, 1.1, 1.25, 1.7])
def test_a_target_that_cannot_be_held_is_answered_with_one_that_can(slower):
    times = TIMES.slowed(slower)
    with pytest.raises(UsageError) as refused:
        plan.check_target(times, Budget(0.01, 0.3))
    give = int(re.search(r"give (\d+) or more", str(refused.value))[1]) / 1000
    plan.check_target(times, Budget(give, 0.3))
    with pytest.raises(UsageError):
        plan.check_target(times, Budget(give - 0.001, 0.3))


def test_an_engine_of_one_batch_alone_has_times_of_that():
    info = ModelInfo("small", 64, 8, 10, "stage", (0.5,), elastic=(ElasticStage(64, 12, 64),))
    engine = FakeEngine(info, BatchRange(3, 3))
    times = measured(engine, BUDGET, 16)
    assert times.batches == measured(engine, BUDGET, 2).batches == (3,)
    with pytest.raises(UsageError, match="a batch of 3 images at keep ratio 0.3 takes"):
        plan.check_target(dataclasses.replace(times, seconds=((1.0,) * 5,)), BUDGET)


@pytest.mark.parametrize(
    ("ratio", "seconds"),
    [
        (0.1, 0.5 * TIMES.of(16, 0)),
        (0.5625, TIMES.of(16, 1) / 2 + TIMES.of(16, 2) / 2),
    ],
)
def test_runs_at_ratios_that_clients_ask_for_make_no_machine_seem_faster(ratio, seconds):
    controller = Controller(BUDGET, TIMES, Clock())
    for _ in range(plan.RECENT):
        controller.running(16, ratio, [])
        controller.ran(16, ratio, seconds)
    assert controller._state.slower == pytest.approx(1)


def test_what_is_filled_up_to_a_batch_takes_as_long_as_that(monkeypatch):
    clock = Clock()

    def compute(images):
        clock.now += len(images)
        return {"logits": np.zeros((len(images), 10), np.float32)}

    gaps = (BatchRange(1, 3), BatchRange(9, 16))
    info = ModelInfo("small", 64, 8, 10, "stage", (0.5,), elastic=(ElasticStage(64, 12, 64),))
    engine = FakeEngine(info, BatchRange(1, 16), compute, ranges=gaps)
    monkeypatch.setattr("evodeploy.serving.controller.time", types.SimpleNamespace(perf_counter=clock))
    times = measured(engine, BUDGET, 16)
    assert [times.of(images, 0) for images in range(1, 17)] == [engine.next_batch(images) for images in range(1, 17)]


@pytest.mark.parametrize("target", [0.1, 0.25, 1.0])
def test_waiting_for_others_costs_no_tokens(target):
    budget = Budget(target, 0.3)
    waits = plan.patience(TIMES, budget)
    assert waits > 0
    assert plan.possible(TIMES, budget, [waits, 0.0], 0.0) == 4
    assert plan.patience(TIMES.slowed(10), budget) < waits


def test_no_image_waits_for_others_where_a_target_leaves_no_time():
    assert plan.patience(TIMES, Budget(0.03, 0.3)) == 0


def test_what_is_no_budget_is_refused():
    for wrong in ((0, 0.3), (1, 0), (1, 0.5, 0.4), (1, 0.5, 1.5), (math.nan, 0.5)):
        with pytest.raises(UsageError):
            Budget(*wrong)
    assert Budget(1, 0.3).ratios == RATIOS
    assert Budget(1, 0.5, 0.5).ratios == (0.5,)


@pytest.mark.parametrize(("low", "high"), [(0.53062, 1.0), (0.53062, 0.53067), (1 / 3, 0.6666)])
def test_no_ratio_of_a_budget_is_beyond_its_ends(low, high):
    """An artefact that keeps 104 of 196 tokens at 0.53062 would refuse 0.5306, which keeps 103."""
    ratios = Budget(1, low, high).ratios
    assert (ratios[0], ratios[-1]) == (low, high)
    assert list(ratios) == sorted(ratios)


def test_a_run_that_failed_keeps_nobody_waiting():
    """Else requests are refused for as long as it would have taken."""
    clock = Clock()
    controller = Controller(BUDGET, TIMES, clock)
    entries = [controller.enter(16, clock.now)]
    controller.running(16, 1.0, entries)
    controller.enter(1, clock.now)
    with pytest.raises(BusyError):
        controller.check_room(8)
    controller.failed()
    controller.check_room(8)


def test_options_make_a_budget():
    assert budget_of(None, None) is None
    assert budget_of(50, None) == Budget(0.05, 0.3, 1.0)
    assert budget_of(50, (0.2, 0.7)) == Budget(0.05, 0.2, 0.7)
    with pytest.raises(UsageError, match="give --target-p99 too"):
        budget_of(None, (0.2, 0.7))
