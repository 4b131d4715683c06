"""The Python function that runs one bench, from artefacts to report."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evodeploy.arguments import checked, several_names
from evodeploy.benchmark.keep_ratios import Ratios
from evodeploy.benchmark.measure.interleaved import BATCHES, Budget
from evodeploy.benchmark.measure.peak import peaks
from evodeploy.benchmark.plans import Builds
from evodeploy.benchmark.report.report import Peaks, Report
from evodeploy.benchmark.report.speedups import label
from evodeploy.benchmark.row import Row
from evodeploy.benchmark.row_specs import row_specs_of
from evodeploy.benchmark.stages import end_to_end
from evodeploy.benchmark.subject import Subject, sources_of, subject_of, without_deploy_files
from evodeploy.benchmark.timed_rows import timed_rows
from evodeploy.benchmark.usual import stated_by_all, tf32_of, usual_engines, usual_precisions
from evodeploy.datasets.sources import images_of
from evodeploy.engines.opener import Source
from evodeploy.errors import RuntimeFailedError, UsageError
from evodeploy.images import ImageLike
from evodeploy.machine.cores import usable_cores
from evodeploy.machine.environment import environment
from evodeploy.preprocess import pictures
from evodeploy.specs import EngineOptions, FastPath

if TYPE_CHECKING:
    from evodeploy.benchmark.entrants import Pictures

LARGEST_BATCH = 16384  # images run at a time
SAMPLE = 64  # pictures of a folder for running and judging the rows

_log = logging.getLogger(__name__)


@checked
def bench(
    artefacts: Source | Sequence[Source] | None = None,
    *,
    model: str | None = None,
    engines: str | Sequence[str] | None = None,
    precisions: str | Sequence[str] | None = None,
    batches: Sequence[int] = BATCHES,
    images: str | os.PathLike[str] | None = None,
    seconds: float = 5.0,
    min_seconds: float | None = None,
    rounds: int = 10,
    precision_target: float = 0.02,
    build: bool = True,
    engine_cache: str | os.PathLike[str] | None = None,
    tf32: bool | None = None,
    device: str | None = None,
    threads: int | None = None,
    keeps: Ratios | None = None,
    fast_path: FastPath | None = None,
) -> Report:
    """Measure engines against PyTorch, and the model against its dense twin, in turn in this process.

    `artefacts` are a checkpoint, a module, ONNX files, engines or deploy files of one model, or names on the hub. By
    default they are the newest export of the current folder, or else the published `model` with random weights.
    `engines` and `precisions` are what to compare: by default PyTorch and what the deploy files state. Without such
    files they are PyTorch and everything that is installed and works on `device`, in FP32 and the reduced precision
    that is fast there. A runtime that can replay CUDA graphs has rows with and without. With `build`, missing TensorRT
    engines are built, and kept in the folder `engine_cache`.

    At each of `batches` the rows are timed in turn for at least `rounds` rounds and, on average over the rows,
    `min_seconds` to `seconds`, until the 95 % interval of every median is narrower than `precision_target`, relative to
    it. They run on the pictures of the folder `images`, for which the time from files to labels is measured too, or on
    noise. `tf32` lets FP32 products on a GPU round to TF32, in all engines or in none; by default it follows the deploy
    files, else it is allowed. A row that cannot run holds the reason.

    An elastic artefact, or a checkpoint with `keeps`, has a row for each of these keep ratios, from one file and one
    engine: each is a share of tokens for all stages, or one for each stage. The row at 1.0 is the dense twin. By
    default an elastic artefact runs at its own ratios, or those of its deploy file, and at 1.0. If its bounds end below
    1.0, it is compared with a static dense twin. `fast_path` is the treatment of tokens that a checkpoint, or the
    published `model`, does not keep: see `export`. Files state theirs.

    Raises UsageError if options contradict each other or the artefacts, InputError for ratios that the artefact does
    not support, BadFileError if a file cannot be read.
    """
    whole = all(type(batch) is int and 1 <= batch <= LARGEST_BATCH for batch in batches)
    if not batches or not whole or len(set(batches)) < len(batches):
        raise UsageError(
            f"batches are {batches}, expected whole numbers from 1 to {LARGEST_BATCH}, each once, such as (1, 8, 32)"
        )
    least = min(1.0, seconds) if min_seconds is None else min_seconds
    budget = Budget(seconds, rounds, precision_target, least)
    paths = images_of(images) if images is not None else []
    threads = EngineOptions(threads).threads or usable_cores()
    machine = environment(threads)
    sources, stated = without_deploy_files(sources_of(artefacts, model))
    device = device or stated_by_all(stated, "device")
    tf32 = tf32_of(tf32, stated)
    stated_keeps = [each.keep_ratio for each in stated if each.keep_ratio is not None]
    subject = subject_of(sources, model, keeps, stated_keeps, fast_path)
    if paths and subject.info is None:
        raise UsageError(f"{subject.name} does not say how images are prepared: leave out --images")
    for line in subject.notes:
        _log.info(line)
    builds = Builds(tuple(batches), None if engine_cache is None else Path(engine_cache), tf32) if build else None
    names = several_names(engines) if engines else usual_engines(subject, device, stated)
    kinds = several_names(precisions) if precisions else usual_precisions(device, stated)
    sample = _sample(paths, subject, batches)
    _log.info("preparing the model and its dense twin")
    with row_specs_of(subject, names, kinds, threads, builds, tf32, device) as specs:
        rows = timed_rows(specs, batches, budget, sample)
        timed = [row for row in rows if row.timing and row.precision]
        best = _peaks(timed, threads)
        ended = {row.spec: label(row, rows) for row in timed if row.spec.role == "evo" and row.in_flight == 1}
        named = [(name, spec) for spec, name in ended.items()]
        stages = end_to_end(named, paths, max(batches), seconds) if paths else []
    return Report(subject, machine, budget, tuple(rows), best, tuple(stages))


def _sample(paths: Sequence[ImageLike], subject: Subject, batches: Sequence[int]) -> Pictures | None:
    """Return the pictures to run the rows on, at least as many as the largest batch if available; None for noise."""
    return pictures(paths[: max(SAMPLE, *batches)], subject.info) if paths and subject.info else None


def _peaks(timed: Sequence[Row], threads: int) -> Peaks:
    """Return the machine's limits: its fastest product, or a row that is faster, since its clock varies with time.

    If a product fails, return none, because the rows have already been measured.
    """
    _log.info("measuring the machine's matrix products")
    try:
        best = peaks([(row.device, row.arithmetic) for row in timed if row.arithmetic], threads)
    except RuntimeFailedError as error:
        _log.warning(f"{error}: no row has its share of the peak")
        return {}
    for row in timed:
        if row.arithmetic and (key := (row.device, row.arithmetic)) in best and not row.wrong:
            best[key] = max(best[key], row.operations_per_second or 0.0)
    return best
