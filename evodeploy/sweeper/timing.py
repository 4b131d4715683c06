"""Times every candidate of a sweep in turn with a common reference, in groups and several times."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial

import numpy as np
from numpy.typing import NDArray

from evodeploy.benchmark.measure import interleaved
from evodeploy.benchmark.measure.intervals import median_interval
from evodeploy.engines.base import Engine
from evodeploy.engines.opener import open_engine
from evodeploy.errors import EvodeployError
from evodeploy.preprocess import as_input, random_pictures
from evodeploy.sweeper.request import SweepRequest
from evodeploy.sweeper.space import Candidate
from evodeploy.sweeper.state import State

_log = logging.getLogger(__name__)

GROUP = 6  # candidates timed in turn with the reference; as many engines as fit into memory
# A reopened engine may be a tenth faster or slower for its whole lifetime, regardless of the rounds. So each candidate
# is opened and timed this many times, in different groups, and its interval spans all of these times.
SITTINGS = 3


def timed(candidate: Candidate, state: State) -> bool:
    """Return whether all sittings of the candidate are done."""
    return len(state.speeds.get(str(candidate), ())) == SITTINGS


def time_all(candidates: Sequence[Candidate], request: SweepRequest, state: State, in_time: Callable[[], bool]) -> None:
    """Measure the speeds of `candidates` relative to the first, as far as `in_time` allows.

    In every group the first candidate runs in turn with the others, so a slowdown of the machine between groups has no
    effect. Others that cannot be opened or run are left out, see `state`. Raises an error if the first one fails.
    """
    reference = candidates[0]
    for sitting in range(SITTINGS):
        waiting = [each for each in candidates[1:] if len(state.speeds.get(str(each), ())) == sitting]
        random.Random(sitting).shuffle(waiting)
        alone = not state.reference and not waiting
        with closing(_Engines(request)) as engines:
            for start in range(0, 1 if alone else len(waiting), GROUP):
                if not in_time() and state.reference:
                    break
                group = waiting[start : start + GROUP]
                _log.info(f"timing {len(group)} candidates against {reference}, sitting {sitting + 1} of {SITTINGS}")
                able, (first, *others) = _timed_where_able(reference, group, engines, request, state)
                state.reference.append(float(np.median(first)))
                for each, samples in zip(able, others, strict=True):
                    ratio = median_interval((first / samples).tolist())  # round by round
                    state.speeds.setdefault(str(each), []).append([ratio.value, ratio.low, ratio.high])
                state.write()
    able = [each for each in candidates[1:] if str(each) not in state.left_out]
    if not able or any(timed(each, state) for each in able):
        state.speeds[str(reference)] = [[1.0, 1.0, 1.0]] * SITTINGS


class _FailedError(Exception):
    """A candidate cannot be opened or run. The cause gives the reason."""

    def __init__(self, candidate: Candidate, cause: EvodeployError) -> None:
        super().__init__(f"{candidate}: {cause}")
        self.candidate, self.cause = candidate, cause


@contextmanager
def _failing(candidate: Candidate) -> Iterator[None]:
    """Raise _FailedError with the candidate if its engine fails inside."""
    try:
        yield
    except EvodeployError as error:
        raise _FailedError(candidate, error) from error


class _Engines:
    """The engines of a sitting, at most as many as fit into memory. The keep ratios of an elastic file share one."""

    def __init__(self, request: SweepRequest) -> None:
        self._request = request
        self._open: dict[tuple[str, str, str], Engine] = {}

    def of(self, candidates: Sequence[Candidate]) -> list[Engine]:
        """Return an engine for each of `candidates`. Other engines are closed if there is no room for all."""
        keys = [(self._request.file_of(each), each.engine, each.precision) for each in candidates]
        for key in set(self._open) - set(keys):
            if len({*self._open, *keys}) > GROUP + 1:
                self._open.pop(key).close()
        for key, each in zip(keys, candidates, strict=True):
            if key not in self._open:
                path = self._request.folder / self._request.file_of(each)
                with _failing(each):
                    self._open[key] = open_engine(path, each.engine, each.options(self._request.threads))
        return [self._open[key] for key in keys]

    def close(self) -> None:
        """Close all open engines."""
        for engine in self._open.values():
            engine.close()


def _timed_where_able(
    reference: Candidate, group: Sequence[Candidate], engines: _Engines, request: SweepRequest, state: State
) -> tuple[Sequence[Candidate], list[NDArray[np.float64]]]:
    """Return those of `group` that run, with the seconds of `reference` and of each of them. Others are left out."""
    while True:
        try:
            return group, _timed_in_turn((reference, *group), engines, request)
        except _FailedError as failed:
            if failed.candidate == reference:
                raise failed.cause from failed.cause.__cause__
            state.leave_out(str(failed.candidate), failed.cause)
            group = [each for each in group if each != failed.candidate]


def _timed_in_turn(
    candidates: Sequence[Candidate], engines: _Engines, request: SweepRequest
) -> list[NDArray[np.float64]]:
    """Return the seconds of each candidate's runs, round by round. Raises _FailedError."""
    clocks = []
    for each, engine in zip(candidates, engines.of(candidates), strict=True):
        assert engine.info is not None  # exported by this sweep
        images = as_input(random_pictures(engine.info, request.batch), engine.info)
        keep = engine.info.keep_of(each.keep) if request.elastic else None
        clocks.append(partial(_clocked, each, interleaved.wall_clock(partial(engine.run, keep=keep), images)))
    seconds = request.seconds / SITTINGS
    timings = interleaved.measured(clocks, interleaved.Budget(seconds, min_seconds=min(1.0, seconds))).timings
    return [np.array(timing.samples) for timing in timings]


def _clocked(candidate: Candidate, clock: interleaved.Clock) -> float:
    with _failing(candidate):
        return clock()
