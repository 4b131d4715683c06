"""One bench, from candidates to rows."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evodeploy.bench.candidate import Candidate
from evodeploy.bench.energy import joules_per_run, meter_of
from evodeploy.bench.intervals import Interval
from evodeploy.bench.judge import SAMPLE, Verdict, judged
from evodeploy.bench.measure import Budget, Clock, Measurement, Stop, Timing, measured, wall_clock
from evodeploy.bench.memory import MemoryMeter
from evodeploy.engines.base import Array, Engine, run_all
from evodeploy.engines.finite import PROBLEM
from evodeploy.errors import EvodeployError, InputError, OutOfMemoryError
from evodeploy.preprocess import as_input, random_pictures
from evodeploy.specs import Precision

Pictures = NDArray[np.uint8]
Transfers = Literal["none", "included", "resident"]


@dataclass(frozen=True)
class Row:
    """One candidate at one batch size: what was measured, or the reason why nothing was.

    `batch` is what was run, less than `asked` where memory ran out. `transfers` says whether the time holds those to
    and from a device: `included`, or none because the batch is `resident` there; `none` on the host itself. `verdict`
    is None for the row that others are compared with. Memory is in bytes, energy in joules of one image.
    """

    candidate: Candidate
    asked: int
    batch: int
    precision: Precision | None
    device: str
    transfers: Transfers = "none"
    timing: Timing | None = None
    stopped: Stop | None = None
    verdict: Verdict | None = None
    host_memory: int | None = None
    device_memory: int | None = None
    joules: float | None = None
    reason: str = ""

    @property
    def label(self) -> str:
        """The engine, its precision, and whether it replays a CUDA graph."""
        parts = (self.candidate.engine, self.precision or "", "graph" if self.candidate.cuda_graph else "")
        return " ".join(part for part in parts if part)

    @property
    def images_per_second(self) -> Interval | None:
        """Throughput at the median run."""
        return self.timing.interval.inverted(self.batch) if self.timing else None

    @property
    def wrong(self) -> bool:
        """Whether it was timed and computes something else than it should."""
        return self.verdict is not None and not self.verdict.correct


def bench(
    candidates: Sequence[Candidate],
    batches: Sequence[int],
    budget: Budget,
    tell: Callable[[str], None],
    pictures: Pictures | None = None,
) -> list[Row]:
    """Time all `candidates` at each of `batches`, interleaved; `tell` hears what is being done.

    They run on `pictures` (N, H, W, 3), as `preprocess.cropped` gives them, or on noise. A candidate that cannot be
    opened, or fails, becomes a row with its reason, and the others go on; one that runs out of memory is run on half
    the batch. Each row is judged by what PyTorch eager computes in FP32, or else the first row of the same model, on 16
    images or more.
    """
    with ExitStack() as stack:
        entrants = [_entrant(candidate, stack, tell) for candidate in candidates]
        rows: list[Row] = []
        for batch in batches:
            rows += _at_batch(entrants, batch, budget, tell, pictures)
        return rows


@dataclass
class _Entrant:
    """A candidate and the engine it was opened as, or the reason why there is none."""

    candidate: Candidate
    engine: Engine | None = None
    reason: str = ""
    memory: MemoryMeter = field(default_factory=MemoryMeter)


@dataclass(eq=False)  # told apart by identity
class _Lane:
    """One way of running one candidate: what times it, and what it last computed."""

    row: Row
    engine: Engine
    clock: Clock
    computed: Callable[[], dict[str, Array]]
    sample: Array

    def first_outputs(self) -> Array:
        """What the first output is for each image of the sample, the timed batch as the last timed run left it."""
        name, size = self.engine.outputs[0].name, self.row.batch
        rest = self.sample[size:]
        parts = [self.computed()[name]] + ([run_all(self.engine, rest, size)[name]] if len(rest) else [])
        return np.concatenate(parts)


class _LaneFailedError(Exception):
    """Carries the lane that failed out of the rounds."""

    def __init__(self, lane: _Lane, error: EvodeployError) -> None:
        super().__init__(str(error))
        self.lane = lane


class _HostRun:
    """Runs an engine on a batch and keeps the outputs, for the clock and the judge."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.outputs: dict[str, Array] = {}

    def __call__(self, images: Array) -> None:
        self.outputs = self._engine.run(images)


def _entrant(candidate: Candidate, stack: ExitStack, tell: Callable[[str], None]) -> _Entrant:
    entrant = _Entrant(candidate)
    tell(f"opening {candidate.engine} {candidate.precision or ''} ({candidate.role})")
    try:
        with entrant.memory.watching():
            entrant.engine = stack.enter_context(candidate.open())
    except EvodeployError as error:
        entrant.reason = str(error)
    return entrant


def _at_batch(
    entrants: Sequence[_Entrant],
    batch: int,
    budget: Budget,
    tell: Callable[[str], None],
    pictures: Pictures | None,
) -> list[Row]:
    with ExitStack() as stack:
        entered: list[_Lane | Row] = []
        sample = functools.partial(_sample, pictures=pictures, count=max(batch, SAMPLE), made={})
        for entrant in entrants:
            entered += _lanes(entrant, batch, sample, stack, tell)
        lanes = [entry for entry in entered if isinstance(entry, _Lane)]
        tell(f"batch {batch}: timing {len(lanes)} rows in turn")
        measurement, failed = _raced(lanes, budget)
        running = [lane for lane in lanes if lane not in failed]
        finished = dict(zip(running, _finished(running, measurement), strict=True))
    finished |= {lane: replace(lane.row, reason=reason) for lane, reason in failed.items()}
    return [entry if isinstance(entry, Row) else finished[entry] for entry in entered]


def _lanes(
    entrant: _Entrant, batch: int, sampled: Callable[[Engine], Array], stack: ExitStack, tell: Callable[[str], None]
) -> Iterator[_Lane | Row]:
    """The lanes of one candidate, warmed once: with transfers, and where it can keep a batch on its device without."""
    candidate, engine = entrant.candidate, entrant.engine
    row = Row(candidate, batch, batch, candidate.precision, "", reason=entrant.reason)
    if engine is None:
        yield row
        return
    row = replace(row, precision=_precision(candidate, engine), device=engine.device)
    tell(f"batch {batch}: warming up {row.label} ({candidate.role})")
    try:
        sample = sampled(engine)
        fitting = _largest_fitting(entrant, engine, batch, sample, tell)
    except EvodeployError as error:
        yield replace(row, reason=str(error))
        return
    on_device = engine.device != "cpu"
    row = replace(
        row,
        batch=fitting,
        transfers="included" if on_device else "none",
        host_memory=entrant.memory.host,
        device_memory=entrant.memory.device if on_device else None,
    )
    run = _HostRun(engine)
    yield _Lane(row, engine, wall_clock(run, sample[:fitting]), lambda: run.outputs, sample)
    row = replace(row, transfers="resident")
    try:
        resident = engine.resident(sample[:fitting])
    except EvodeployError as error:
        yield replace(row, reason=str(error))
        return
    if resident is not None:
        stack.callback(resident.close)
        yield _Lane(row, engine, resident.time, resident.outputs, sample)


def _precision(candidate: Candidate, engine: Engine) -> Precision | None:
    """What was asked for where the engine could choose, else what its artefact says."""
    return candidate.precision or (engine.info.precision if engine.info else None)


def _largest_fitting(entrant: _Entrant, engine: Engine, batch: int, sample: Array, tell: Callable[[str], None]) -> int:
    """Run once; the batch that went through: `batch`, or where memory ran out a half of it, or a quarter and so on."""
    while True:
        try:
            with entrant.memory.watching():
                engine.run(sample[:batch])
            return batch
        except OutOfMemoryError:
            if batch == 1:
                raise
            tell(f"{engine.name} runs out of memory at batch {batch}: trying {batch // 2}")
            batch //= 2


def _raced(lanes: Sequence[_Lane], budget: Budget) -> tuple[Measurement, dict[_Lane, str]]:
    """All lanes timed in turn, and why those failed that did: one that fails leaves, and the others start again."""
    failed: dict[_Lane, str] = {}
    while True:
        running = [lane for lane in lanes if lane not in failed]
        if not running:
            return Measurement((), "time"), failed
        try:
            return measured([_guarded(lane) for lane in running], budget), failed
        except _LaneFailedError as error:
            failed[error.lane] = str(error)


def _guarded(lane: _Lane) -> Clock:
    def clock() -> float:
        try:
            return lane.clock()
        except EvodeployError as error:
            raise _LaneFailedError(lane, error) from error

    return clock


def _finished(lanes: Sequence[_Lane], measurement: Measurement) -> Iterator[Row]:
    """The rows of what was timed, judged, and where it can be measured with their energy.

    One that computes no numbers is a row with that reason, and judges no other.
    """
    outputs = [lane.first_outputs() for lane in lanes]
    sound = [lane for lane, got in zip(lanes, outputs, strict=True) if np.isfinite(got).all()]
    for lane, timing, got in zip(lanes, measurement.timings, outputs, strict=True):
        if lane not in sound:
            yield replace(lane.row, reason=PROBLEM)
            continue
        reference = _reference(lane, sound)
        verdict = None
        if reference is not lane:
            expected = outputs[lanes.index(reference)]
            classifies = lane.engine.info is None or lane.engine.info.output == "logits"
            verdict = judged(expected, got, lane.row.precision or "fp32", lane.row.device, classifies=classifies)
        meter = meter_of(lane.row.device)
        joules = joules_per_run(lane.clock, meter) / lane.row.batch if meter else None
        yield replace(lane.row, timing=timing, stopped=measurement.stopped, verdict=verdict, joules=joules)


def _reference(lane: _Lane, lanes: Sequence[_Lane]) -> _Lane:
    peers = [other for other in lanes if other.row.candidate.role == lane.row.candidate.role]
    return next((p for p in peers if p.row.candidate.engine == "torch" and p.row.precision == "fp32"), peers[0])


def _sample(engine: Engine, pictures: Pictures | None, count: int, made: dict[str, Array]) -> Array:
    """`count` of `pictures`, over again where they are fewer, or noise, as `engine` takes them: the same for all.

    `made` keeps them, so that engines share what they share.
    """
    spec = engine.inputs[0]
    if engine.info is not None:
        kind = engine.info.input_format
        if kind not in made:
            if pictures is None:
                pictures = random_pictures(engine.info, count)
            made[kind] = as_input(pictures[np.arange(count) % len(pictures)], engine.info)
        return made[kind]
    if spec.dtype != "float32":
        raise InputError(f"input '{spec.name}' is {spec.dtype}, and the file does not say what of: export it again")
    generator = np.random.Generator(np.random.PCG64(0))
    return generator.standard_normal((count, *(size or 1 for size in spec.shape[1:])), dtype=np.float32)
