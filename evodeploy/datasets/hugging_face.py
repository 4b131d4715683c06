"""Data sets that Hugging Face's `datasets` saved, with `save_to_disk` or in its cache. Nothing is downloaded."""

from __future__ import annotations

import glob
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evodeploy.datasets.examples import Dataset, Example
from evodeploy.datasets.parquet import LABEL, bytes_of, image_in, named, row_name
from evodeploy.errors import BadFileError, UsageError, needs
from evodeploy.images import StoredImage
from evodeploy.text import brief, reason

_INFO = "dataset_info.json"
_OF_MAPS = "cache-"  # the prefix of the library's results of `map`
_ROWS = 256  # rows whose paths are read at once
_CACHED = re.compile(r".+?-(?P<split>[\w.]+?)(-[0-9]{5}-of-(?P<parts>[0-9]{5}))?\.arrow")


@dataclass(frozen=True, eq=False)
class Table:
    """The table of a split ("" for the only one) in memory-mapped files. Threads may share it: one reads at a time."""

    folder: Path
    split: str
    rows: Any  # only the column of images, in Arrow's format: as stored, not decoded
    size: int
    lock: threading.Lock

    def value(self, row: int) -> Any:
        """Return the bytes of the image in `row`, and its path."""
        try:
            with self.lock:
                return self.rows[row].column(0)[0].as_py()
        except Exception as error:  # the library raises errors of any type for a damaged file
            raise BadFileError(f"{self.place}, row {row} cannot be read: {reason(error)}") from error

    @property
    def place(self) -> Path:
        """The folder and the split, in the form in which a command names them."""
        return self.folder / self.split


@dataclass(frozen=True, slots=True)
class SavedRow(StoredImage):
    """An image in a row of a saved table. Threads may share it, since they may share the table."""

    table: Table
    row: int

    @property
    def size(self) -> int:
        """Bytes of all files of the table."""
        return self.table.size

    @property
    def place(self) -> tuple[str, int]:
        """The name of the table, and the row."""
        return str(self.table.place.resolve()), self.row

    def read(self) -> bytes:
        """Return the bytes of the image file. Raises BadFileError if the row holds none."""
        return bytes_of(image_in(self.table.value(self.row), self.table.folder / _INFO), str(self))

    def __str__(self) -> str:
        return f"{self.table.place}, row {self.row}"


def saved_place(path: Path) -> tuple[Path, str | None] | None:
    """Return the folder of the saved data set that `path` names, and the split, or None if `path` is the folder itself.

    Returns None if it names no saved data set. A pattern is not a split: names of splits have no such characters.
    """
    if _is_saved(path):
        return path, None
    named = not path.exists() and not glob.has_magic(path.name) and "{" not in path.name
    return (path.parent, path.name) if named and _is_saved(path.parent) else None


def _is_saved(path: Path) -> bool:
    """Return whether `path` is a folder of `save_to_disk`, or a cache folder with prepared tables."""
    if (path / "dataset_dict.json").is_file():
        return True
    return (path / _INFO).is_file() and any(path.glob("*.arrow"))


def saved_dataset(path: Path, split: str | None) -> Dataset:
    """Return the images of a saved data set, of one `split` if there are several.

    It uses the first column of images, and the first one of class labels, or otherwise the column `label`.
    Raises MissingExtraError without the library, UsageError if a split must be named or there are no images,
    BadFileError if the library cannot read it.
    """
    with needs("data"):
        import datasets
        from datasets import load_from_disk  # noqa: F401 - any folder of that name is importable, but empty
    try:
        tables = _tables(path, datasets)
    except Exception as error:  # the library raises errors of any type
        raise BadFileError(f"{path} is not a data set that `datasets` can read: {reason(error)}") from error
    split = _chosen(tables, path, split)
    table, title = tables[split], brief(str(path / split))
    kinds = {name: type(feature).__name__ for name, feature in table.features.items()}
    column = next((name for name, kind in kinds.items() if kind == "Image"), None)
    if column is None:
        raise UsageError(f"{title} has no column of images ({', '.join(kinds)}): cast one to datasets.Image")
    label = next((name for name, kind in kinds.items() if kind == "ClassLabel"), LABEL if LABEL in kinds else None)
    classes = tuple(getattr(table.features[label], "names", None) or ()) if label else ()
    try:
        for name in filter(None, (column, label)):
            table.data.column(name).validate(full=True)  # Arrow trusts offsets, and a damaged one crashes the process
        stored = table.with_format("arrow")
        images = stored.select_columns([column])
        parts = (images[first : first + _ROWS].column(0) for first in range(0, len(table), _ROWS))
        paths = [value.as_py() for part in parts for chunk in part.chunks for value in chunk.field("path")]
        labels = stored.select_columns([label])[:].column(0).to_pylist() if label else [None] * len(paths)
    except Exception as error:
        raise BadFileError(f"{path} is not a data set that `datasets` can read: {reason(error)}") from error
    odd = next((each for each in labels if each is not None and type(each) not in (int, str)), None)
    if odd is not None:
        raise UsageError(f"the column '{label}' of {title} holds {type(odd).__name__}, expected whole numbers or text")
    size = sum(file.stat().st_size for file in path.rglob("*.arrow") if not file.name.startswith(_OF_MAPS))
    saved = Table(path, split, images, size, threading.Lock())
    examples = [
        Example(row_name(str(row), name), SavedRow(saved, row), named(each, classes, title))
        for row, (name, each) in enumerate(zip(paths, labels, strict=True))
    ]
    return Dataset(title, tuple(examples), classes)


def _tables(path: Path, datasets: Any) -> dict[str, Any]:
    """Return the tables of `path` by the names of their splits; a table without a split has the name ''."""
    if (path / "dataset_dict.json").is_file():
        return dict(datasets.load_from_disk(str(path)))
    if (path / "state.json").is_file():
        return {"": datasets.load_from_disk(str(path))}
    parts: dict[str, list[Any]] = {}
    stated: dict[str, int] = {}
    for file in sorted(path.glob("*.arrow")):
        match = _CACHED.fullmatch(file.name)
        if match is not None and not file.name.startswith(_OF_MAPS):
            parts.setdefault(match["split"], []).append(datasets.Dataset.from_file(str(file)))
            stated[match["split"]] = int(match["parts"] or 1)
    for split, found in parts.items():
        if len(found) != stated[split]:
            raise ValueError(f"the split {split} has {len(found)} of its {stated[split]} files")
    return {split: datasets.concatenate_datasets(tables) for split, tables in parts.items()}


def _chosen(tables: Mapping[str, Any], path: Path, split: str | None) -> str:
    if not tables:
        raise UsageError(f"{path} is a saved data set without a table: expected an .arrow file for each split")
    if split is None and len(tables) == 1:
        return next(iter(tables))
    known = [name for name in tables if name]
    names = ", ".join(known) or "one table without a name"
    if split is None:
        raise UsageError(f"{path} has the splits {names}: name one, such as {path / known[0]}")
    if split not in tables:
        raise UsageError(f"{path} has no split '{brief(split, 60)}': expected {names}")
    return split
