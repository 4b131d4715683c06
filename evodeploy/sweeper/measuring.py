"""Exports, evaluates and times every candidate of a sweep, each once, even after interruptions."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable
from statistics import median

from evodeploy.benchmark.measure.intervals import Interval
from evodeploy.errors import EvodeployError, UnavailableError, UsageError
from evodeploy.evaluation.report import Accuracy
from evodeploy.sweeper.front import Point
from evodeploy.sweeper.judging import Judge
from evodeploy.sweeper.request import SweepRequest
from evodeploy.sweeper.search import Keep, descent
from evodeploy.sweeper.space import Candidate
from evodeploy.sweeper.state import State
from evodeploy.sweeper.timing import time_all, timed

_log = logging.getLogger(__name__)


def measured(request: SweepRequest, state: State) -> tuple[list[Point], dict[str, str]]:
    """Return all measured candidates, and why others were not measured; `state` comes from `begun`.

    The first candidate that did not fail permanently is the reference of all timings. Raises UnavailableError if this
    machine lacks what it needs.
    """
    began = time.monotonic()

    def in_time() -> bool:
        return request.budget is None or time.monotonic() - began < request.budget

    judge = Judge(request, state)
    wanted = _searched(judge, request, state, in_time) if request.by_stage else request.candidates
    ready = []
    for candidate in wanted:
        if str(candidate) in state.failures or not (in_time() or judge.knows(candidate)):
            continue
        try:
            judge.judge(candidate)
            ready.append(candidate)
        except EvodeployError as error:
            if not ready and isinstance(error, UnavailableError):  # the next run would have another reference
                raise
            state.leave_out(str(candidate), error)
    if not ready:
        raise UsageError(f"nothing could be tried: {next(iter(state.left_out.values()), 'the budget is too small')}")
    time_all(ready, request, state, in_time)
    points = [_point(each, state, request) for each in ready if timed(each, state)]
    if not points:
        raise UsageError(
            "the budget was spent before any candidate was timed: what is known is kept, and the same sweep resumes "
            "from there"
        )
    left_out = state.left_out
    left_out |= {str(each): "the budget was spent" for each in wanted if _unknown(each, state)}
    return points, left_out


def _unknown(candidate: Candidate, state: State) -> bool:
    return not timed(candidate, state) and str(candidate) not in state.left_out


def _searched(judge: Judge, request: SweepRequest, state: State, in_time: Callable[[], bool]) -> list[Candidate]:
    """Return every candidate with each of the keep ratios that the search with the first candidate visits."""
    from evodeploy.models.checkpoint import load_checkpoint
    from evodeploy.models.cost import cost_of
    from evodeploy.models.zoo import with_selection

    first = request.candidates[0]
    config = load_checkpoint(request.checkpoint).config

    def candidate(keep: Keep) -> Candidate:
        return dataclasses.replace(first, keep=keep[:1] if len(set(keep)) == 1 else keep)

    def score(keep: Keep) -> float | None:
        each = candidate(keep)
        if str(each) not in state.accuracies:
            if not in_time():
                return None
            try:
                judge.judge(each)
            except EvodeployError as error:
                _log.info(f"left out: {each}: {error}")
                return -math.inf
        return state.accuracies[str(each)][0]

    def work(keep: Keep) -> float:
        return cost_of(with_selection(config, keep)).gflops

    path = descent(request.by_stage, len(config.keep_ratios), score, work, request.least)
    keeps = [candidate(keep).keep for keep in path]
    _log.info(f"searched by stage: {', '.join(candidate(keep).kept for keep in path)}")
    return [dataclasses.replace(each, keep=keep) for each in request.candidates for keep in keeps]


def _point(candidate: Candidate, state: State, request: SweepRequest) -> Point:
    values, lows, highs = zip(*state.speeds[str(candidate)], strict=True)
    speed = Interval(median(values), min(lows), max(highs))
    seconds = median(state.reference) / speed.value
    known = state.accuracies.get(str(candidate))
    accuracy = Accuracy(*known) if known is not None else None
    return Point(candidate, request.file_of(candidate), speed, request.batch / seconds, seconds, accuracy)
