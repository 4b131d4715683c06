"""Opens and warms up engines, and prepares them for timing at one batch size, with one or more batches in flight."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from evodeploy.benchmark.measure.clocks import ClockLog
from evodeploy.benchmark.measure.interleaved import TIMED, Clock, Stream, wall_clock
from evodeploy.benchmark.measure.memory import MemoryMeter
from evodeploy.benchmark.row import Row
from evodeploy.benchmark.row_spec import RowSpec
from evodeploy.engines.base import Array, Engine, Resident, run_all
from evodeploy.errors import EvodeployError, InputError, OutOfMemoryError
from evodeploy.preprocess import as_input, random_pictures

_log = logging.getLogger(__name__)

Pictures = NDArray[np.uint8]
Entered = TypeVar("Entered")

DEPTHS = (2, 3)  # further numbers of batches in flight besides one


@dataclass
class Entrant:
    """A planned row and its opened engine, or the reason why it could not be opened."""

    spec: RowSpec
    engine: Engine | None = None
    reason: str = ""
    memory: MemoryMeter = field(default_factory=MemoryMeter)


@dataclass(eq=False)  # compared by identity: two may hold equal values
class Racer:
    """One way of running one engine: its clock, and the outputs of the last run.

    `clock` times `work`, without waiting for anything else; one call runs `batches` batches. `exposed` holds, for each
    time from `clock`, whether it may include the host's time to start the run.
    """

    row: Row
    engine: Engine
    clock: Clock
    computed: Callable[[], dict[str, Array]]
    sample: Array
    work: Callable[[], object]
    batches: int = 1
    resident: Resident | None = None
    clocks: ClockLog = field(default_factory=ClockLog)
    exposed: list[bool] = field(default_factory=list)

    def first_outputs(self) -> Array:
        """Return the first output for each image of the sample, for the timed batch from the last timed run."""
        name, size = self.engine.outputs[0].name, self.row.batch
        rest, keep = self.sample[size:], self.row.spec.tokens
        parts = [self.computed()[name]] + ([run_all(self.engine, rest, size, keep)[name]] if len(rest) else [])
        return np.concatenate(parts)


class _HostRun:
    """Runs an engine on a batch and keeps the outputs, for the clock and the judge."""

    def __init__(self, engine: Engine, keep: tuple[int, ...] | None) -> None:
        self._engine, self._keep = engine, keep
        self.outputs: dict[str, Array] = {}

    def __call__(self, images: Array) -> None:
        self.outputs = self._engine.run(images, self._keep)


def opened(spec: RowSpec, stack: ExitStack) -> Entrant:
    """Open the engine of `spec`, which `stack` closes. If that fails, the entrant holds the reason."""
    entrant = Entrant(spec)
    _log.info(f"opening {spec.engine} {spec.precision or ''} ({spec.role})")
    try:
        with entrant.memory.watching():
            entrant.engine = stack.enter_context(spec.open())
    except EvodeployError as error:
        entrant.reason = str(error)
    return entrant


def racers_of(
    entrant: Entrant, batch: int, sampled: Callable[[Engine], Array], stack: ExitStack
) -> Iterator[Racer | Row]:
    """Yield the racers of one entrant, warmed up: with transfers and, if its device can hold a batch, without.

    If the engine gains from several batches in flight, each comes with one and with each of `DEPTHS`.
    """
    spec, engine = entrant.spec, entrant.engine
    row = Row(spec, batch, batch, spec.precision, "", reason=entrant.reason)
    if engine is None:
        yield row
        return
    on_device = engine.device != "cpu"
    row = replace(
        row,
        precision=spec.precision or engine.precision,
        device=engine.device,
        tf32=engine.tf32,
        transfers="included" if on_device else "none",
    )
    _log.info(f"batch {batch}: warming up {row.label} ({spec.role})")
    try:
        sample = sampled(engine)
        fitting = _largest_fitting(entrant, engine, batch, sample)
    except EvodeployError as error:
        yield replace(row, reason=str(error))
        return
    row = replace(
        row,
        batch=fitting,
        host_memory=entrant.memory.host,
        device_memory=entrant.memory.device if on_device else None,
    )
    run = _HostRun(engine, spec.tokens)
    clock = wall_clock(run, sample[:fitting])
    yield Racer(row, engine, clock, lambda: run.outputs, sample, clock)
    depths = [depth for depth in DEPTHS if depth <= engine.deepest]
    for depth in depths:
        yield _or_reason(replace(row, in_flight=depth), partial(_streaming, engine, sample))
    if on_device:
        for depth in (1, *depths):
            at_depth = replace(row, transfers="resident", in_flight=depth)
            entered = _or_reason(at_depth, partial(_resident, engine, sample, stack))
            if entered is not None:
                yield entered


def _or_reason(row: Row, enter: Callable[[Row], Entered]) -> Entered | Row:
    """Return the result of `enter` for `row`, or the row with the reason if that fails."""
    try:
        return enter(row)
    except EvodeployError as error:
        return replace(row, reason=str(error))


def _streaming(engine: Engine, sample: Array, row: Row) -> Racer:
    stream = Stream(engine, sample[: row.batch], row.in_flight, row.spec.tokens)
    stream()  # allocates the memory of all batches in flight
    row = replace(row, launches=TIMED)
    return Racer(row, engine, stream, lambda: stream.outputs, sample, stream, stream.batches)


def _resident(engine: Engine, sample: Array, stack: ExitStack, row: Row) -> Racer | None:
    resident = engine.resident(sample[: row.batch], row.in_flight, row.spec.tokens)
    if resident is None:
        return None
    stack.callback(resident.close)
    work, batches = resident.run, row.in_flight
    return Racer(row, engine, resident.time, resident.outputs, sample, work, batches, resident)


def _largest_fitting(entrant: Entrant, engine: Engine, batch: int, sample: Array) -> int:
    """Run once, and return the batch size that fits: `batch` or, if memory runs out, half of it, a quarter and so on.

    Raises OutOfMemoryError if memory runs out at the smallest of these sizes that the engine takes.
    """
    while True:
        try:
            with entrant.memory.watching():
                engine.run(sample[:batch], entrant.spec.tokens)
            return batch
        except OutOfMemoryError:
            if not engine.takes(batch // 2):
                raise
            _log.info(f"{engine.name} runs out of memory at batch {batch}: trying {batch // 2}")
            batch //= 2


def sample_of(engine: Engine, pictures: Pictures | None, count: int, made: dict[str, Array]) -> Array:
    """Return `count` of `pictures`, repeated if necessary, or noise, as input for `engine`: the same for all engines.

    `made` caches them by input format, so that engines share arrays.
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
        raise InputError(
            f"input '{spec.name}' is {spec.dtype}, and the file does not state what its values are: export it again"
        )
    generator = np.random.Generator(np.random.PCG64(0))
    return generator.standard_normal((count, *(size or 1 for size in spec.shape[1:])), dtype=np.float32)
