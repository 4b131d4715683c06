"""`evodeploy predict`."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evodeploy.cli import options, values
from evodeploy.cli.console import Force, Json, note, progress, result, result_json
from evodeploy.cli.reader import while_read
from evodeploy.cli.values import whole
from evodeploy.errors import BadFileError, UsageError
from evodeploy.text import brief

if TYPE_CHECKING:
    from evodeploy.inference.records import Failure, Prediction

SHOWN_FAILURES = 10
SHOWN = 10_000  # characters of a line, at most


def predict(
    context: typer.Context,
    artefact: Annotated[Path, values.artefact("A checkpoint, an ONNX file or an engine.")],
    images: Annotated[list[Path], typer.Argument(help="Image files, and folders of them with all below.")],
    top: Annotated[int | None, whole("--top", 1, values.CLASSES, "How many classes to name, 5 by default.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the predictions here: a .jsonl, .csv or .parquet file.")
    ] = None,
    batch: Annotated[int, whole("--batch", 1, values.BATCH, "Images run at a time.")] = 32,
    engine: options.EngineName = None,
    device: options.Device = None,
    precision: options.Precision = None,
    cuda_graph: options.CudaGraph = False,
    threads: options.Threads = None,
    cache: options.Cache = None,
    tf32: options.Tf32 = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Name the most probable classes of images.

    Images without a prediction are listed at the end; the command fails where no image has one.
    """
    from evodeploy.files import claimed
    from evodeploy.images import image_paths
    from evodeploy.inference.answers import classes_to_name
    from evodeploy.inference.predictor import load
    from evodeploy.inference.records import Failure
    from evodeploy.inference.tables import kind_of_table, writing

    if out is not None:
        context.with_resource(claimed([(out, kind_of_table(out))], force, artefact, *images))
    else:
        context.with_resource(while_read())
    failures: list[Failure] = []
    documents: list[dict[str, Any]] = []
    how = dataclasses.asdict(options.engine_options(device, precision, cuda_graph, threads, cache, tf32))
    with load(artefact, engine, **how) as predictor, contextlib.ExitStack() as stack:
        for image in images:
            if not image.exists():
                raise UsageError(f"{image} does not exist (expected an image, or a folder of images)")
        paths = [path for image in images for path in (image_paths(image) if image.is_dir() else [image])]
        top = classes_to_name(predictor.info, top)
        write = stack.enter_context(writing(out, top)) if out is not None else None
        stream = stack.enter_context(contextlib.closing(predictor.stream(paths, top, batch=batch)))
        done = stack.enter_context(progress("predicting", quiet=out is None))
        for count, (path, answer) in enumerate(zip(paths, stream, strict=True), 1):
            done(count, len(paths))
            if isinstance(answer, Failure):
                failures.append(answer)
            if write is not None:
                write(path, answer)
            elif as_json:
                documents.append(_document(path, answer))
            elif not isinstance(answer, Failure):
                named = "  ".join(f"{label.name} {label.probability:.1%}" for label in answer.labels)
                result(brief(f"{path}  {named}", SHOWN))
        if len(failures) == len(paths):
            raise BadFileError(f"none of {len(paths)} images has a prediction; the first: {failures[0]}")
    if as_json and out is None:
        result_json(documents)
    for failure in failures[:SHOWN_FAILURES]:
        note(f"left out: {failure}")
    if len(failures) > SHOWN_FAILURES:
        note(f"left out: {len(failures) - SHOWN_FAILURES} more")
    if out is not None and as_json:
        given = {"out": str(out), "images": len(paths), "predictions": len(paths) - len(failures)}
        result_json(given | {"failures": [str(failure) for failure in failures]})
    elif out is not None:
        result(f"{out}  {len(paths) - len(failures)} predictions, {len(failures)} images without one")


def _document(path: Path, answer: Prediction | Failure) -> dict[str, Any]:
    from evodeploy.inference.records import Failure

    if isinstance(answer, Failure):
        return {"image": str(path), "error": str(answer)}
    return {"image": str(path)} | answer.to_dict()
