"""One bench, from candidates to rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from evodeploy.bench.candidates import Candidate
from evodeploy.bench.measure import Budget, Timing, interleaved
from evodeploy.engines.base import Array, Engine
from evodeploy.errors import EvodeployError, InputError


@dataclass(frozen=True)
class Row:
    """One candidate at one batch size: its timing, or the reason why there is none."""

    engine: str
    role: str
    precision: str
    artefact: str
    device: str
    batch: int
    timing: Timing | None
    ratio: float | None
    reason: str = ""

    @property
    def images_per_second(self) -> float | None:
        """Throughput at the median run."""
        return self.batch / self.timing.median if self.timing else None


def bench(
    candidates: Sequence[Candidate],
    batches: Sequence[int],
    budget: Budget,
    tell: Callable[[str], None],
) -> list[Row]:
    """Time all `candidates` at each of `batches`, interleaved; `tell` hears what is being done.

    A row's ratio is its throughput over that of PyTorch eager on the model itself, at the same batch. A candidate that
    cannot be opened, or fails, becomes a row with its reason, and the others go on.
    """
    with ExitStack() as stack:
        engines: dict[Candidate, Engine] = {}
        refused: dict[Candidate, str] = {}
        for candidate in candidates:
            try:
                engines[candidate] = stack.enter_context(candidate.open())
            except EvodeployError as error:
                refused[candidate] = str(error)
        rows: list[Row] = []
        for batch in batches:
            rows += _at_batch(candidates, engines, refused, batch, budget, tell)
        return rows


def _at_batch(
    candidates: Sequence[Candidate],
    engines: dict[Candidate, Engine],
    refused: dict[Candidate, str],
    batch: int,
    budget: Budget,
    tell: Callable[[str], None],
) -> list[Row]:
    reasons = dict(refused)
    ready = []
    timings: dict[Candidate, Timing] = {}
    if engines:
        images = _images(next(iter(engines.values())), batch)  # the same for all: one that takes others is refused
    for candidate, engine in engines.items():
        tell(f"batch {batch}: warming up {candidate.engine} ({candidate.role})")
        try:
            engine.run(images)
            ready.append(candidate)
        except EvodeployError as error:
            reasons[candidate] = str(error)
    if ready:
        tell(f"batch {batch}: timing {len(ready)} candidates in turn")
        timed = interleaved([engines[candidate].run for candidate in ready], images, budget)
        timings = dict(zip(ready, timed, strict=True))
    baseline = next((timings[c] for c in ready if c.engine == "torch" and c.role == "evo"), None)
    return list(_rows(candidates, engines, timings, reasons, baseline, batch))


def _rows(
    candidates: Sequence[Candidate],
    engines: dict[Candidate, Engine],
    timings: dict[Candidate, Timing],
    reasons: dict[Candidate, str],
    baseline: Timing | None,
    batch: int,
) -> Iterator[Row]:
    for candidate in candidates:
        timing = timings.get(candidate)
        engine = engines.get(candidate)
        yield Row(
            engine=candidate.engine,
            role=candidate.role,
            precision=(engine.info.precision if engine and engine.info else candidate.precision) or "",
            artefact=candidate.artefact,
            device=getattr(engine, "device", ""),
            batch=batch,
            timing=timing,
            ratio=baseline.median / timing.median if baseline and timing else None,
            reason=reasons.get(candidate, ""),
        )


def _images(engine: Engine, batch: int) -> Array:
    """Normalised noise; what is in an image does not change how long it takes."""
    spec = engine.inputs[0]
    if spec.dtype != "float32":
        raise InputError(f"input '{spec.name}' is {spec.dtype}: only float32 inputs are benched")
    generator = np.random.Generator(np.random.PCG64(0))
    return generator.standard_normal((batch, *(size or 1 for size in spec.shape[1:])), dtype=np.float32)
