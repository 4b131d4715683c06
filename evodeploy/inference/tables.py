"""Predictions written as a table while they come: a line of JSON, a row of CSV or of Parquet for each image."""

from __future__ import annotations

import contextlib
import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from evodeploy.errors import UsageError, needs
from evodeploy.files import replacing
from evodeploy.inference.records import Failure, Prediction
from evodeploy.kinds import PREDICTIONS, Kind

Write: TypeAlias = Callable[[Path, "Prediction | Failure"], None]

_ROWS = 1024  # held before they are written to Parquet


def kind_of_table(path: Path) -> Kind:
    """The format that the name of `path` asks for.

    Raises UsageError for a name of none of the formats, MissingExtraError where the format's library is missing.
    """
    if path.suffix.lower() not in _WRITERS:
        raise UsageError(f"cannot tell the format of {path}: expected {', '.join(_WRITERS)}")
    if path.suffix.lower() == ".parquet":
        with needs("batch"):
            import pyarrow.parquet  # noqa: F401
    return PREDICTIONS[path.suffix.lower()]


@contextlib.contextmanager
def writing(path: Path, top: int) -> Iterator[Write]:
    """A function that writes the row of one image and its `top` classes into `path`, which appears once all are."""
    with replacing(path) as draft, _WRITERS[path.suffix.lower()](draft, top) as write:
        yield write


def row(image: Path, answer: Prediction | Failure) -> dict[str, Any]:
    """One image's row, the same in every format but for how lists are written; `error` is null for a prediction."""
    name = _utf8(str(image))
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
    """`text` with the bytes of a path that are not UTF-8 as escapes, for no format has them."""
    return text.encode("utf-8", "backslashreplace").decode()


@contextlib.contextmanager
def _json_lines(path: Path, top: int) -> Iterator[Write]:
    with path.open("w", encoding="utf-8") as file:

        def write(image: Path, answer: Prediction | Failure) -> None:
            file.write(json.dumps(row(image, answer), ensure_ascii=False, allow_nan=False) + "\n")

        yield write


@contextlib.contextmanager
def _csv(path: Path, top: int) -> Iterator[Write]:
    """Lists become columns for each rank: label_1, index_1, probability_1, label_2 and so on."""
    lists = {"labels": "label", "indices": "index", "probabilities": "probability"}
    names = [f"{name}_{rank}" for rank in range(1, top + 1) for name in lists.values()]
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.DictWriter(file, ["image", *names, "error"])
        rows.writeheader()

        def write(image: Path, answer: Prediction | Failure) -> None:
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

        def write(image: Path, answer: Prediction | Failure) -> None:
            held.append(row(image, answer))
            if len(held) == _ROWS:
                flush()

        def flush() -> None:
            file.write_table(pa.Table.from_pylist(held, schema))
            held.clear()

        yield write
        flush()


_WRITERS = {".jsonl": _json_lines, ".csv": _csv, ".parquet": _parquet}
