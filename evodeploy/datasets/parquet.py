"""Rows of Parquet files with images: bytes, structs with bytes as in Hugging Face's `datasets`, or paths."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evodeploy.datasets.examples import Example, Label
from evodeploy.errors import BadFileError, UsageError, needs
from evodeploy.files import open_regular
from evodeploy.images import StoredImage
from evodeploy.schema import read_json
from evodeploy.text import reason

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

IMAGE, LABEL = "image", "label"  # columns
_ROWS = 32  # rows that are read at once
_HELD = 4  # the latest of these batches, for threads that ask in another order
_OPEN = 4  # files that are open at once
_BUFFER = 1 << 20  # bytes of a column that are read at once


class Reader:
    """Reads the values of one column of a Parquet file, roughly in the order of the rows. For one thread at a time.

    A few rows are held. Going back reads the row group from its beginning. Raises BadFileError for a damaged file.
    """

    def __init__(self, path: Path, column: str) -> None:
        self._path, self._column = path, column
        with opened(path) as file:
            self._file = file
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        self._starts = list(itertools.accumulate(sizes, initial=0))[:-1]
        self._batches: Iterator[Any] = iter(())
        self._next = file.metadata.num_rows  # the first row of the next batch
        self._held: deque[tuple[int, Any]] = deque(maxlen=_HELD)

    def value(self, row: int) -> Any:
        """Return the value of `row`, as plain Python."""
        group = max(i for i, start in enumerate(self._starts) if start <= row)
        with translated(self._path):
            for start, values in self._held:
                if start <= row < start + len(values):
                    return values[row - start].as_py()
            if row < self._next or self._starts[group] > self._next:
                groups = range(group, len(self._starts))
                self._batches = self._file.iter_batches(_ROWS, row_groups=groups, columns=[self._column])
                self._next = self._starts[group]
                self._held.clear()
            while True:
                try:
                    values = next(self._batches).column(0)
                except BaseException:  # it ends here: the next row starts anew, and fails for the same reason
                    self._next = self._file.metadata.num_rows
                    raise
                self._held.append((self._next, values))
                self._next += len(values)
                if row < self._next:
                    return values[row - self._next + len(values)].as_py()


class Tables:
    """Parquet files of which only a few are open at once. Threads may share it: one of them reads at a time."""

    def __init__(self, column: str) -> None:
        self._column = column
        self._lock = threading.Lock()
        self._readers: dict[Path, Reader] = {}

    def value(self, path: Path, row: int) -> Any:
        """Return the value of `row` in the file `path`. Raises BadFileError if the file is damaged."""
        with self._lock:
            reader = self._readers.pop(path, None) or Reader(path, self._column)
            self._readers[path] = reader
            if len(self._readers) > _OPEN:
                del self._readers[next(iter(self._readers))]
            return reader.value(row)


@dataclass(frozen=True, slots=True)
class Row(StoredImage):
    """An image in a row of a Parquet file. Threads may share it, since they may share its `tables`."""

    tables: Tables
    path: Path
    row: int

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self.path.stat().st_size

    @property
    def place(self) -> tuple[str, int]:
        """The file, and the row in it."""
        return str(self.path.resolve()), self.row

    def read(self) -> bytes:
        """Return the bytes of the image file. Raises BadFileError if the row holds none."""
        return bytes_of(image_in(self.tables.value(self.path, self.row), self.path), str(self))

    def __str__(self) -> str:
        return f"{self.path}, row {self.row}"


def bytes_of(image: Path | bytes | None, where: str) -> bytes:
    """Return the bytes of what `image_in` found. Raises BadFileError for None, and the errors of `open_regular`."""
    if image is None:
        raise BadFileError(f"{where}: the row holds no image")
    if isinstance(image, bytes):
        return image
    with open_regular(image, "an image") as file:
        return file.read()


def image_in(value: Any, path: Path) -> Path | bytes | None:
    """Return the image bytes in a value of the Parquet file `path`, or the image's path, relative to its folder."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    return path.parent / value if isinstance(value, str) else value


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn pyarrow's errors for a damaged file into BadFileError."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, StopIteration, ValueError) as error:  # also for text that is not UTF-8
        raise BadFileError(f"{path} is not a readable Parquet file: {reason(error)}") from error


@contextlib.contextmanager
def opened(path: Path) -> Iterator[pq.ParquetFile]:
    """Open the file to be read in parts; it stays open. Raises MissingExtraError, and the errors of `open_regular`."""
    with needs("data"):
        import pyarrow.parquet as pq
    open_regular(path, "a Parquet file").close()
    with translated(path):
        yield pq.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False)


def rows_of(path: Path, column: str) -> int:
    """Return the number of rows. Raises UsageError if `column` holds no images, BadFileError if it is not a table."""
    with opened(path) as file, file:
        schema, rows = file.schema_arrow, file.metadata.num_rows
    import pyarrow as pa

    if column not in schema.names:
        names = ", ".join(schema.names)
        raise UsageError(
            f"{path} has no column '{column}': rename the column of images to that, or name it with "
            f"--image-column of `evodeploy batch` ({names})"
        )
    kind = schema.field(column).type
    if not (_is_image(kind) or (pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0)):
        raise UsageError(f"the column '{column}' of {path} is {kind}, expected images (binary) or paths (string)")
    return int(rows)


def _is_image(kind: pa.DataType) -> bool:
    import pyarrow as pa

    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_string, pa.types.is_large_string)
    return any(test(kind) for test in tests)


def parquet_examples(path: Path, root: Path, tables: Tables) -> tuple[list[Example], tuple[str, ...]]:
    """Return the images of a file in the order of its rows, and the names of its classes if it states them.

    Labels are in the column `label`, as whole numbers or names. Raises the same errors as `rows_of`.
    """
    rows = rows_of(path, IMAGE)
    with opened(path) as file, file:
        schema = file.schema_arrow
        kind = schema.field(IMAGE).type
        stated = getattr(kind, "get_field_index", lambda name: -1)("path") >= 0
        paths = file.read([f"{IMAGE}.path"]).column(0).to_pylist() if stated else [None] * rows
        labels = file.read([LABEL]).column(0).to_pylist() if LABEL in schema.names else [None] * rows
        pairs = list(zip(paths, labels, strict=True))
    odd = next((each for each in labels if each is not None and type(each) not in (int, str)), None)
    if odd is not None:
        raise UsageError(
            f"the column '{LABEL}' of {path} is {schema.field(LABEL).type}, expected whole numbers or text"
        )
    classes = _class_names(schema.metadata or {})
    prefix = path.relative_to(root).as_posix()
    return [
        Example(
            row_name(f"{prefix}/{row}", each["path"] if each else None),
            Row(tables, path, row),
            named(label, classes, path),
        )
        for row, (each, label) in enumerate(pairs)
    ], classes


def row_name(row: str, path: object) -> str:
    """Return the name of a row, followed by that of the file from which it was made if the data has it."""
    return f"{row}/{Path(path).name}" if isinstance(path, str) and path else row


def named(label: Label | None, classes: tuple[str, ...], where: object) -> Label | None:
    """Return the class name of a number if the data states names, and None for -1, which means no label.

    Raises BadFileError for any other number without a name.
    """
    if label == -1:
        return None
    if type(label) is not int or not classes:
        return label
    if not 0 <= label < len(classes):
        raise BadFileError(f"{where} has the label {label}, but the file states {len(classes)} classes: it is damaged")
    return classes[label]


def _class_names(metadata: dict[bytes, bytes]) -> tuple[str, ...]:
    """Return the classes of the column `label` that Hugging Face's `datasets` write into a file's metadata."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        names = read_json(metadata[b"huggingface"].decode())["info"]["features"][LABEL]["names"]
        if all(isinstance(name, str) for name in names):
            return tuple(names)
    return ()
