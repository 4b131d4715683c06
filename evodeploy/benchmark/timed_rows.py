"""The rows of a bench: opens engines, times them in turn, and judges their results."""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace

import numpy as np

from evodeploy.benchmark.entrants import Entrant, Pictures, Racer, opened, racers_of, sample_of
from evodeploy.benchmark.judge import SAMPLE, Verdict, judged
from evodeploy.benchmark.measure.energy import SECONDS, joules_per_run
from evodeploy.benchmark.measure.interleaved import Budget, Clock, Measurement, measured
from evodeploy.benchmark.row import Row
from evodeploy.benchmark.row_spec import Kept, Role, RowSpec
from evodeploy.engines.base import Array, Engine
from evodeploy.engines.finite import PROBLEM
from evodeploy.errors import EvodeployError
from evodeploy.inference.answers import softmax
from evodeploy.machine.energy import meter_of
from evodeploy.specs import lowest

_log = logging.getLogger(__name__)


def timed_rows(
    specs: Sequence[RowSpec], batches: Sequence[int], budget: Budget, pictures: Pictures | None = None
) -> list[Row]:
    """Time all `specs` at each of `batches`, interleaved. Progress is logged.

    They run on `pictures` (N, H, W, 3), as `preprocess.cropped` returns them, or on noise. A row that cannot be opened,
    or fails, holds its reason, and the others continue. A row that runs out of memory is run with half the batch. Each
    row is compared with PyTorch eager in FP32, or else with the first row of the same model, weights and keep ratio,
    preferably in FP32, on 16 images or more. If their `top_k` differ, the probabilities that both give are compared.
    """
    with ExitStack() as stack:
        entrants = list(_opened_once(specs, stack))
        rows: list[Row] = []
        for batch in batches:
            rows += _at_batch(entrants, batch, budget, pictures)
        return rows


def _opened_once(specs: Sequence[RowSpec], stack: ExitStack) -> Iterator[Entrant]:
    """Yield each of `specs` with its engine. The keep ratios of an elastic artefact share one engine."""
    engines: dict[Callable[[], Engine], Entrant] = {}
    for spec in specs:
        if spec.open not in engines:
            engines[spec.open] = opened(spec, stack)
        shared = engines[spec.open]
        yield replace(shared, spec=spec, memory=copy.copy(shared.memory))


class _RacerFailedError(Exception):
    """Names the racer that failed, to end the rounds."""

    def __init__(self, racer: Racer, error: EvodeployError) -> None:
        super().__init__(str(error))
        self.racer = racer


def _at_batch(entrants: Sequence[Entrant], batch: int, budget: Budget, pictures: Pictures | None) -> list[Row]:
    with ExitStack() as stack:
        entered: list[Racer | Row] = []
        sample = functools.partial(sample_of, pictures=pictures, count=max(batch, SAMPLE), made={})
        for entrant in entrants:
            entered += racers_of(entrant, batch, sample, stack)
        racers = [entry for entry in entered if isinstance(entry, Racer)]
        _log.info(f"batch {batch}: timing {len(racers)} rows in turn")
        measurement, failed = _raced(racers, budget)
        running = [racer for racer in racers if racer not in failed]
        finished = dict(zip(running, _finished(running, measurement, budget), strict=True))
    finished |= {racer: replace(racer.row, reason=reason) for racer, reason in failed.items()}
    return [entry if isinstance(entry, Row) else finished[entry] for entry in entered]


def _raced(racers: Sequence[Racer], budget: Budget) -> tuple[Measurement, dict[Racer, str]]:
    """Time all racers in turn, and return the reasons of failures. If one fails, the others start again without it."""
    failed: dict[Racer, str] = {}
    while True:
        running = [racer for racer in racers if racer not in failed]
        if not running:
            return Measurement((), "time"), failed
        try:
            return measured([_guarded(racer) for racer in running], budget), failed
        except _RacerFailedError as error:
            failed[error.racer] = str(error)


def _guarded(racer: Racer) -> Clock:
    def clock() -> float:
        try:
            seconds = racer.clock()
            if racer.row.device != "cpu":
                racer.clocks.note()
            racer.exposed.append(racer.resident is not None and not racer.resident.hidden)
            return seconds
        except EvodeployError as error:
            raise _RacerFailedError(racer, error) from error

    return clock


def _finished(racers: Sequence[Racer], measurement: Measurement, budget: Budget) -> Iterator[Row]:
    """Yield the judged rows of what was timed, with energy if it can be measured and `budget` allows the time.

    A racer that fails here, whose outputs are not finite, or that recorded no CUDA graph, becomes a row with that
    reason, and is not a reference.
    """
    outputs: dict[Racer, Array] = {}
    failed: dict[Racer, str] = {}
    for racer in racers:
        why = racer.engine.without_graph(racer.row.batch, racer.row.spec.tokens)
        if why:
            failed[racer] = f"it ran without a CUDA graph, which cannot be recorded: {why}"
            continue
        try:
            got = racer.first_outputs()
        except EvodeployError as error:
            failed[racer] = str(error)
            continue
        if np.isfinite(got).all():
            outputs[racer] = got
    for racer, timing in zip(racers, measurement.timings, strict=True):
        if racer not in outputs:
            yield replace(racer.row, reason=failed.get(racer, PROBLEM))
            continue
        row = replace(racer.row, timing=timing, stopped=measurement.stopped, verdict=_verdict(racer, outputs))
        samples = len(timing.samples)  # what was recorded before is of the warm-up, or of rounds that began again
        try:
            row = replace(row, joules=_joules(racer, budget), clocks=racer.clocks.summary(samples))
        except EvodeployError as error:
            row = replace(racer.row, reason=str(error))
        resident, exposed = racer.resident, any(racer.exposed[-samples:])
        yield replace(row, launches=resident.launches, exposed=exposed) if resident else row


def _verdict(racer: Racer, outputs: dict[Racer, Array]) -> Verdict | None:
    reference = _reference(racer, list(outputs))
    if reference is racer:
        return None
    info, keep = racer.engine.info, racer.row.spec.keep
    merges = info is not None and info.fast_path == "merge" and not (keep.dense if keep else info.dense)
    tf32 = racer.row.tf32 or reference.row.tf32
    precision = lowest([each.row.precision or "fp32" for each in (racer, reference)])
    expected, got = (outputs[each] for each in (reference, racer))
    ours, theirs = (each.engine.info.top_k if each.engine.info else None for each in (reference, racer))
    if ours != theirs:
        most = min(each for each in (ours, theirs) if each)
        expected, got = _best(expected, ours)[:, :most], _best(got, theirs)[:, :most]
    classifies = ours is None and theirs is None and (info is None or info.output == "logits")
    return judged(expected, got, precision, tf32=tf32, classifies=classifies, merges=merges)


def _best(output: Array, top_k: int | None) -> Array:
    """Return the probabilities of an artefact's best classes (N, K), the highest first; for logits those of all."""
    return output if top_k else -np.sort(-softmax(output), axis=1)


def _joules(racer: Racer, budget: Budget) -> float | None:
    meter = meter_of(racer.row.device) if budget.seconds >= SECONDS else None
    return joules_per_run(racer.work, meter) / racer.batches / racer.row.batch if meter else None


def _reference(racer: Racer, racers: Sequence[Racer]) -> Racer:
    peers = [other for other in racers if _computation(other) == _computation(racer)]
    fp32 = [peer for peer in peers if peer.row.precision == "fp32"]
    return next((peer for peer in fp32 if peer.row.spec.engine == "torch"), (fp32 or peers)[0])


def _computation(racer: Racer) -> tuple[Role, Kept | None, bool]:
    """Return the key that is equal for rows that should compute the same."""
    spec = racer.row.spec
    return spec.role, spec.keep, spec.random
