"""A batch run from request to summary: what remains to do, what is done already, and where each answer goes."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from evodeploy.artefacts import identity
from evodeploy.batch.inputs import Shard, list_inputs
from evodeploy.batch.output import OutputFolder
from evodeploy.batch.pipeline import Work, cluster, results
from evodeploy.errors import UsageError
from evodeploy.inference.answers import classes_to_name
from evodeploy.inference.loading import load
from evodeploy.machine.cores import usable_cores
from evodeploy.specs import EngineOptions

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BatchRequest:
    """The inputs, options and output of a batch run. If `top` is None it is 5, or nothing if the model has no classes.

    `ray` is the address of a cluster to join.
    """

    artefact: Path
    inputs: tuple[str, ...]
    output: Path
    actors: int = 1
    batch: int = 32
    top: int | None = None
    image_column: str = "image"
    shard: int = 1024
    engine: str | None = None
    options: EngineOptions = field(default_factory=EngineOptions)
    force: bool = False
    ray: str | None = None


@dataclass(frozen=True)
class Summary:
    """The contents of the folder after a run; `resumed` images were in it before."""

    images: int
    predicted: int
    broken: int
    shards: int
    resumed: int


def run_batch(request: BatchRequest, progress: Callable[[int, int], None]) -> Summary:
    """Predict every image of the inputs that the output folder lacks. `progress` gets the images done and their total.

    Raises UsageError if the inputs or the folder do not fit, the errors of opening the artefact, and RuntimeFailedError
    if the run stops: its finished shards stay, and the same request resumes from there.
    """
    folder = OutputFolder(request.output)
    _check_outside(folder, (os.fspath(request.artefact), *request.inputs))
    listing = list_inputs(request.inputs, request.image_column, request.shard, folder)
    _check_outside(folder, listing.files())
    work = _work(request)
    manifest = {
        "artefact": work.sha256,
        "inputs": listing.sha256,
        "images": listing.images,
        "engine": work.engine,
        "device": "cuda" if work.on_gpu else "cpu",
        "keep_ratios": work.info.keep_ratios,
        "precision": work.options.precision,
        "tf32": work.options.tf32,
        "batch": work.batch,
        "top": work.top,
        "shard": request.shard,
    }
    with folder.claimed(manifest, request.force):
        shards = dict(enumerate(listing.shards))
        todo = {number: shard for number, shard in shards.items() if not folder.is_finished(number, len(shard))}
        resumed = done = listing.images - sum(map(len, todo.values()))
        if resumed:
            _log.info(f"{resumed} of {listing.images} images are done already")
        if todo:
            with cluster(work, request.ray):
                for number, answers in _whole(results(todo, work), shards):
                    folder.write(number, answers)
                    done += answers.num_rows
                    progress(done, listing.images)
        predicted, broken = folder.count("predictions"), folder.count("errors")
        summary = Summary(listing.images, predicted, broken, len(shards), resumed)
        folder.complete({"images": listing.images, "predicted": predicted, "broken": broken, "shards": len(shards)})
    return summary


def _check_outside(folder: OutputFolder, paths: Iterable[str]) -> None:
    """Raise UsageError if the artefact or an input is inside the output folder, where a run replaces files."""
    output = os.path.realpath(folder.path)
    for path in paths:
        if Path(os.path.realpath(path)).is_relative_to(output):
            raise UsageError(f"{path} is inside the output folder {folder.path}: choose another --output")


def _work(request: BatchRequest) -> Work:
    """Prepare the work. The artefact is opened once here, before any worker opens it, to report its errors at once."""
    threads = request.options.threads or max(1, usable_cores() // request.actors)
    cache = request.options.cache and request.options.cache.absolute()  # workers have different working folders
    options = dataclasses.replace(request.options, threads=threads, cache=cache)
    sha256 = identity(request.artefact)
    with load(request.artefact, request.engine, **dataclasses.asdict(options)) as predictor:
        info, engine = predictor.info, predictor.engine
    kind, _, index = engine.device.partition(":")
    if index not in ("", "0"):
        raise UsageError(
            f"the engine would run on {engine.device}, but Ray chooses the GPU of each actor: use --device "
            f"{kind}, and set CUDA_VISIBLE_DEVICES to the GPUs it may choose"
        )
    wanted = info.num_classes or request.top is not None
    return Work(
        home=Path.cwd(),
        artefact=request.artefact,
        sha256=sha256,
        info=info,
        engine=engine.name,
        on_gpu=kind == "cuda",
        options=options,
        actors=request.actors,
        batch=request.batch,
        top=classes_to_name(info, request.top) if wanted else 5,
    )


def _whole(answers: Iterable[pa.Table], shards: Mapping[int, Shard]) -> Iterator[tuple[int, pa.Table]]:
    """Yield each shard's number and all of its answers, as soon as the last of them has arrived."""
    waiting: dict[int, list[pa.Table]] = defaultdict(list)
    for table in answers:
        for number in table["shard"].unique().to_pylist():
            waiting[number].append(table.filter(pc.equal(table["shard"], number)))
            if sum(part.num_rows for part in waiting[number]) == len(shards[number]):
                yield number, pa.concat_tables(waiting.pop(number))
