"""Every candidate of a sweep exported, evaluated and timed, each once, whatever interrupts it."""

from __future__ import annotations

import dataclasses
import logging
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from evodeploy.benchmark.measure import interleaved
from evodeploy.benchmark.measure.intervals import Interval, median_interval
from evodeploy.engines.opener import open_engine
from evodeploy.errors import EvodeployError, UsageError
from evodeploy.evaluation.pipeline import evaluate
from evodeploy.evaluation.report import Accuracy
from evodeploy.exporter.pipeline import export
from evodeploy.files import sha256
from evodeploy.graph.flops import flops_of_onnx
from evodeploy.onnx_files import info_of, read_onnx
from evodeploy.preprocess import as_input, random_pictures
from evodeploy.sweeper.front import Point
from evodeploy.sweeper.request import SweepRequest
from evodeploy.sweeper.search import Keep, descent
from evodeploy.sweeper.space import Candidate
from evodeploy.sweeper.state import State

_log = logging.getLogger(__name__)

GROUP = 6  # candidates timed in turn with the reference: that many engines fit into memory
# An engine opened again may be a tenth faster or slower for as long as it lives, whatever its rounds say: so each is
# opened and timed that many times, in other groups, and its interval spans them all.
SITTINGS = 3


def measured(request: SweepRequest, state: State) -> tuple[list[Point], dict[str, str]]:
    """All candidates as they were measured, and why others were not; `state` is what `begun` yields.

    The first candidate is the reference of all timings: in every group it is run in turn with the others, so that a
    machine that slows down between groups changes nothing.
    """
    models = request.folder / "models"
    began = time.monotonic()

    def in_time() -> bool:
        return request.budget is None or time.monotonic() - began < request.budget

    wanted = _searched(models, request, state, in_time) if request.by_stage else request.candidates
    todo = [candidate for candidate in wanted if str(candidate) not in state.failures]
    for candidate in todo:
        if not in_time():
            break
        try:
            _judge(candidate, models, request, state)
        except EvodeployError as error:
            state.failures[str(candidate)] = str(error)
            _log.info(f"left out: {candidate}: {error}")
        state.write()
    ready = [each for each in todo if (models / each.file).exists() and str(each) not in state.failures]
    if not ready:
        raise UsageError(f"nothing could be tried: {next(iter(state.failures.values()), 'the budget is too small')}")
    _time_all(ready, models, request, state, in_time)
    points = [_point(each, state, request) for each in ready if _timed(each, state)]
    if not points:
        raise UsageError(
            "the budget was spent before any candidate was timed: what is known is kept, and the same sweep resumes "
            "from there"
        )
    left_out = dict(state.failures)
    left_out |= {str(each): "the budget was spent" for each in wanted if _unknown(each, state)}
    return points, left_out


def _unknown(candidate: Candidate, state: State) -> bool:
    return not _timed(candidate, state) and str(candidate) not in state.failures


def _timed(candidate: Candidate, state: State) -> bool:
    return len(state.speeds.get(str(candidate), ())) == SITTINGS


def _searched(folder: Path, request: SweepRequest, state: State, in_time: Callable[[], bool]) -> list[Candidate]:
    """Every candidate with each of the keep ratios that the first one's search meets."""
    first = request.candidates[0]
    work: dict[Keep, float] = {}

    def candidate(keep: Keep) -> Candidate:
        return dataclasses.replace(first, keep=keep[:1] if len(set(keep)) == 1 else keep)

    def score(keep: Keep) -> float | None:
        each = candidate(keep)
        if keep in work:
            return state.accuracies[str(each)][0]
        if not in_time():
            return None
        try:
            _judge(each, folder, request, state)
        except EvodeployError as error:
            _log.info(f"left out: {each}: {error}")
            return -math.inf
        state.write()
        operations = flops_of_onnx(read_onnx(folder / each.file))
        if operations is None:
            raise UsageError(f"the operations of {each.file} cannot be counted: name the ratios with --keep instead")
        work[keep] = operations
        return state.accuracies[str(each)][0]

    _export(first, folder, request, state)
    info = info_of(read_onnx(folder / first.file))
    assert info is not None  # exported just now
    path = descent(request.by_stage, len(info.keep_ratios), score, work.__getitem__, request.least)
    keeps = [candidate(keep).keep for keep in path]
    _log.info(f"searched by stage: {', '.join(candidate(keep).kept for keep in path)}")
    return [dataclasses.replace(each, keep=keep) for each in request.candidates for keep in keeps]


def _judge(candidate: Candidate, folder: Path, request: SweepRequest, state: State) -> None:
    """Export the candidate and learn its accuracy, unless both are known."""
    _export(candidate, folder, request, state)
    if request.data is not None and str(candidate) not in state.accuracies:
        _log.info(f"evaluating {candidate}")
        state.accuracies[str(candidate)] = _accuracy(candidate, folder, request)


def _export(candidate: Candidate, folder: Path, request: SweepRequest, state: State) -> None:
    """Write the candidate's file unless it is there."""
    path = folder / candidate.file
    if path.exists():
        info = info_of(read_onnx(path))
        if info is not None and info.source_sha256 == sha256(request.checkpoint):
            return
        if f"models/{candidate.file}" not in state.files:
            raise UsageError(f"{path} is not from this sweep: remove it, or name another folder with -o")
    state.add_file(f"models/{candidate.file}")
    _log.info(f"exporting {candidate.file}")
    stored = candidate.stored
    with _unlogged():
        export(
            request.checkpoint,
            path,
            keep_ratio=candidate.keep,
            precision="fp32" if stored == "bf16" else stored,
            images=(request.images or request.data) if stored == "int8" else None,
            force=True,
        )


def _accuracy(candidate: Candidate, folder: Path, request: SweepRequest) -> list[float]:
    assert request.data is not None
    journal = folder / f"{candidate.file}.{candidate.engine}.{candidate.precision}.part"
    with _unlogged():
        report = evaluate(
            folder / candidate.file,
            request.data,
            labels=request.labels,
            limit=request.limit,
            engine=candidate.engine,
            options=candidate.options(request.threads),
            journal=journal,
        )
    journal.unlink()
    top1 = report.scores[0].top1
    return [top1.value, top1.low, top1.high]


@contextmanager
def _unlogged() -> Iterator[None]:
    """Keep the steps of a candidate's stages out of the log, which has a line for each candidate.

    For the whole process: threads that run these stages meanwhile do not log either.
    """
    loggers = [logging.getLogger(f"evodeploy.{part}") for part in ("exporter", "evaluation")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _time_all(
    candidates: Sequence[Candidate],
    folder: Path,
    request: SweepRequest,
    state: State,
    in_time: Callable[[], bool],
) -> None:
    reference = candidates[0]
    for sitting in range(SITTINGS):
        waiting = [each for each in candidates[1:] if len(state.speeds.get(str(each), ())) == sitting]
        random.Random(sitting).shuffle(waiting)
        alone = not state.reference and not waiting
        for start in range(0, 1 if alone else len(waiting), GROUP):
            if not in_time() and state.reference:
                return
            group = waiting[start : start + GROUP]
            _log.info(f"timing {len(group)} candidates against {reference}, sitting {sitting + 1} of {SITTINGS}")
            first, *others = _timed_in_turn((reference, *group), folder, request)
            state.reference.append(float(np.median(first)))
            for each, samples in zip(group, others, strict=True):
                ratio = median_interval((first / samples).tolist())  # round by round
                state.speeds.setdefault(str(each), []).append([ratio.value, ratio.low, ratio.high])
            state.write()
    state.speeds[str(reference)] = [[1.0, 1.0, 1.0]] * SITTINGS


def _timed_in_turn(candidates: Sequence[Candidate], folder: Path, request: SweepRequest) -> list[NDArray[np.float64]]:
    """Seconds of each candidate's runs, round by round, its engine opened for this."""
    with ExitStack() as stack:
        clocks = []
        for each in candidates:
            engine = stack.enter_context(open_engine(folder / each.file, each.engine, each.options(request.threads)))
            assert engine.info is not None  # exported above
            images = as_input(random_pictures(engine.info, request.batch), engine.info)
            clocks.append(interleaved.wall_clock(engine.run, images))
        seconds = request.seconds / SITTINGS
        timings = interleaved.measured(clocks, interleaved.Budget(seconds, min_seconds=min(1.0, seconds))).timings
        return [np.array(timing.samples) for timing in timings]


def _point(candidate: Candidate, state: State, request: SweepRequest) -> Point:
    values, lows, highs = zip(*state.speeds[str(candidate)], strict=True)
    speed = Interval(median(values), min(lows), max(highs))
    seconds = median(state.reference) / speed.value
    known = state.accuracies.get(str(candidate))
    accuracy = Accuracy(*known) if known is not None else None
    return Point(candidate, f"models/{candidate.file}", speed, request.batch / seconds, seconds, accuracy)
