"""Predictions of many images, written to a table as they come: one line of JSON, or row of CSV or Parquet, for each."""

from __future__ import annotations

import contextlib
import csv
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from evodeploy.errors import BadFileError, UsageError, needs
from evodeploy.files import claimed, replacing
from evodeploy.images import ImageLike, StoredImage
from evodeploy.inference.records import Failure, Prediction, Written
from evodeploy.kinds import PREDICTIONS, Kind
from evodeploy.text import left_out

if TYPE_CHECKING:
    from evodeploy.inference.predictor import KeepRatio, Predictor

Write: TypeAlias = Callable[[ImageLike, "Prediction | Failure"], None]

_ROWS = 1024  # rows to collect before they are written to Parquet

_log = logging.getLogger(__name__)


def write_predictions(
    predictor: Predictor,
    images: Sequence[ImageLike],
    output: str | os.PathLike[str] | Write,
    top: int,
    batch: int,
    keep_ratio: KeepRatio,
    force: bool,
    progress: Callable[[int, int], None] | None,
) -> Written:
    """Predict all `images` and write them to `output`, see `Predictor.write`."""
    failures: list[Failure] = []
    with contextlib.ExitStack() as stack:
        write = output if callable(output) else stack.enter_context(_into(Path(output), images, top, force))
        answers = stack.enter_context(
            contextlib.closing(predictor.stream(images, top, batch=batch, keep_ratio=keep_ratio))
        )
        for done, (image, answer) in enumerate(zip(images, answers, strict=True), 1):
            write(image, answer)
            if isinstance(answer, Failure):
                failures.append(answer)
            if progress is not None:
                progress(done, len(images))
        if len(failures) == len(images):
            raise BadFileError(f"none of {len(images)} images has a prediction; the first: {failures[0]}")
    for line in left_out(failures):
        _log.info(line)
    return Written(None if callable(output) else Path(output), len(images), tuple(failures))


@contextlib.contextmanager
def _into(path: Path, images: Sequence[ImageLike], top: int, force: bool) -> Iterator[Write]:
    files = {Path(image.place[0]) for image in images if isinstance(image, StoredImage)}
    paths = (image for image in images if isinstance(image, Path))
    with claimed([(path, kind_of_table(path))], force, *paths, *files), writing(path, top) as write:
        yield write


def kind_of_table(path: Path) -> Kind:
    """Return the kind of table for the suffix of `path`.

    Raises UsageError if the suffix is of no such format, MissingExtraError if the library of the format is missing.
    """
    if path.suffix.lower() not in _WRITERS:
        raise UsageError(f"cannot infer the format of {path}: expected {', '.join(_WRITERS)}")
    if path.suffix.lower() == ".parquet":
        with needs("batch"):
            import pyarrow.parquet  # noqa: F401
    return PREDICTIONS[path.suffix.lower()]


@contextlib.contextmanager
def writing(path: Path, top: int) -> Iterator[Write]:
    """Yield a function that writes the row of an image with `top` classes into `path`, which appears when complete."""
    with replacing(path) as draft, _WRITERS[path.suffix.lower()](draft, top) as write:
        yield write


def row(image: ImageLike, answer: Prediction | Failure) -> dict[str, Any]:
    """Return the row of an image, the same in every format except for lists; `error` is null for a prediction."""
    name = _utf8(str(image)) if isinstance(image, (str, Path, StoredImage)) else None
    if isinstance(answer, Failure):
        return {"image": name, "labels": None, "indices": None, "probabilities": None, "error": _utf8(str(answer))}
    return {
        "image": name,
        "labels": [label.name for label in answer.labels],
        "indices": [label.index for label in answer.labels],
        "probabilities": [label.probability for label in answer.labels],
        "error": None,
    }


def _utf8(text: str) -> str:
    """Return `text` with escapes for the bytes of a path that are not UTF-8, which no format can hold."""
    return text.encode("utf-8", "backslashreplace").decode()


@contextlib.contextmanager
def _json_lines(path: Path, top: int) -> Iterator[Write]:
    with path.open("w", encoding="utf-8") as file:

        def write(image: ImageLike, answer: Prediction | Failure) -> None:
            file.write(json.dumps(row(image, answer), ensure_ascii=False, allow_nan=False) + "\n")

        yield write


@contextlib.contextmanager
def _csv(path: Path, top: int) -> Iterator[Write]:
    """Write CSV. Lists become columns for each rank: label_1, index_1, probability_1, label_2 and so on."""
    lists = {"labels": "label", "indices": "index", "probabilities": "probability"}
    names = [f"{name}_{rank}" for rank in range(1, top + 1) for name in lists.values()]
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.DictWriter(file, ["image", *names, "error"])
        rows.writeheader()

        def write(image: ImageLike, answer: Prediction | Failure) -> None:
            values = row(image, answer)
            ranked = {
                f"{lists[name]}_{rank}": value for name in lists for rank, value in enumerate(values[name] or (), 1)
            }
            rows.writerow({"image": values["image"], "error": values["error"], **ranked})

        yield write


@contextlib.contextmanager
def _parquet(path: Path, top: int) -> Iterator[Write]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    lists = {"labels": pa.string(), "indices": pa.int32(), "probabilities": pa.float32()}
    columns = {"image": pa.string(), **{name: pa.list_(kind) for name, kind in lists.items()}, "error": pa.string()}
    schema = pa.schema(columns)
    held: list[dict[str, Any]] = []
    with pq.ParquetWriter(path, schema) as file:

        def write(image: ImageLike, answer: Prediction | Failure) -> None:
            held.append(row(image, answer))
            if len(held) == _ROWS:
                flush()

        def flush() -> None:
            file.write_table(pa.Table.from_pylist(held, schema))
            held.clear()

        yield write
        flush()


_WRITERS = {".jsonl": _json_lines, ".csv": _csv, ".parquet": _parquet}
