"""`evodeploy batch`."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from evodeploy.cli import options, values
from evodeploy.cli.console import Json, Stopwatch, note, result, result_json, shows_progress
from evodeploy.cli.values import whole
from evodeploy.errors import BadFileError, needs
from evodeploy.specs import EngineOptions

SECONDS_BETWEEN_LINES = 10.0
KEPT = "the finished shards are kept, and the same command resumes from there"


@options.opens_engine
def batch(
    artefact: Annotated[Path, values.artefact("A checkpoint, an ONNX file, an engine or a deploy file.")],
    inputs: Annotated[
        list[str], typer.Argument(help="Image files, folders, globs, .txt lists of paths, tars, Parquet files.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder for predictions; an interrupted run resumes.")
    ],
    actors: Annotated[int, whole("--actors", 1, 256, "Engines that run at the same time.")] = 1,
    batch: Annotated[int, whole("--batch", 1, values.BATCH, "Images run at a time.")] = 32,
    top: Annotated[int | None, whole("--top", 1, values.CLASSES, "How many classes to name, 5 by default.")] = None,
    image_column: Annotated[str, typer.Option(help="The column of Parquet inputs with images or paths.")] = "image",
    shard: Annotated[
        int, whole("--shard", 1, 10**6, "Images in each part of the output; a kill loses only the parts in progress.")
    ] = 1024,
    engine: options.EngineName = None,
    how: EngineOptions = options.ENGINE_OPTIONS,
    force: Annotated[bool, typer.Option("--force", "-f", help="Discard another run's output in the folder.")] = False,
    ray: options.Ray = None,
    as_json: Json = False,
) -> None:
    """Predict any number of images into Parquet, on Ray.

    The same command resumes after a kill.
    """
    values.for_ray(artefact, output, *inputs)
    with needs("batch"):
        from evodeploy.batch.run import BatchRequest, run_batch
    request = BatchRequest(
        artefact, tuple(inputs), output, actors, batch, top, image_column, shard, engine, how, force, ray
    )
    clock = Stopwatch()
    try:
        with _progress() as progress:
            summary = run_batch(request, progress)
    except KeyboardInterrupt:
        note(f"interrupted: {KEPT}")
        raise typer.Exit(130) from None
    except SystemExit:
        note(f"terminated: {KEPT}")
        raise
    seconds = clock.seconds
    if as_json:
        result_json(dataclasses.asdict(summary) | {"output": str(output), "seconds": seconds})
    else:
        rate = (summary.images - summary.resumed) / seconds
        counts = f"predictions for {summary.predicted} of {summary.images} images"
        result(f"{output}  {counts}  {seconds:.1f} s  {rate:.1f} images/s")
        if summary.broken:
            result(f"{output / 'errors'}  {summary.broken} images have no prediction")
    if not summary.predicted:
        raise BadFileError(f"none of the {summary.images} images has a prediction: see {output / 'errors'}")


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar with the remaining time on a terminal; otherwise print a line at intervals."""
    if not shows_progress():
        yield _lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    with Progress(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task("predicting", total=None)
        yield lambda done, images: bar.update(task, completed=done, total=images)


def _lines() -> Callable[[int, int], None]:
    last = time.monotonic()

    def report(done: int, images: int) -> None:
        nonlocal last
        if time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            note(f"{done} of {images} images")

    return report
