"""What a run reads: images listed in an order that never varies, and cut into shards."""

from __future__ import annotations

import glob
import hashlib
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from evodeploy.errors import BadFileError, UsageError
from evodeploy.files import check_folder, check_input, entries_below
from evodeploy.images import IMAGE_SUFFIXES


@dataclass(frozen=True)
class Files:
    """Image files, by path."""

    paths: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True)
class Rows:
    """Rows `start` to before `stop` of a Parquet file whose `column` holds images or their paths."""

    parquet: str
    column: str
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


Shard = Files | Rows


@dataclass(frozen=True)
class Listing:
    """All shards of a run, numbered by their place, and a checksum of what they list.

    The checksum covers paths and row counts: another list of images has another one, another image by the same name
    has not.
    """

    shards: tuple[Shard, ...]
    sha256: str

    @property
    def images(self) -> int:
        """How many images there are to predict."""
        return sum(map(len, self.shards))

    def files(self) -> Iterator[str]:
        """The path of every image file and, once for each of its shards, of every Parquet file."""
        for shard in self.shards:
            yield from shard.paths if isinstance(shard, Files) else (shard.parquet,)


def list_inputs(inputs: Sequence[str], column: str, size: int) -> Listing:
    """List folders, globs, image files, Parquet files and lists of paths (.txt, one a line), `size` images a shard.

    What is named twice counts once, and the order of `inputs` does not matter. Raises UsageError for an input that does
    not exist, holds no images or is none of these, BadFileError for a Parquet file that cannot be read.
    """
    files: set[str] = set()
    tables: set[str] = set()
    for given in inputs:
        for path in _found(given):
            (tables if _suffix(path) == ".parquet" else files).add(path)
    odd = min((path for path in files | tables if not _is_utf8(path)), default=None)
    if odd is not None:
        raise UsageError(f"the name {odd!r} is not UTF-8, so no table can hold it: rename the file or its folder")
    shards: list[Shard] = []
    remaining = iter(sorted(files))
    while chunk := tuple(itertools.islice(remaining, size)):
        shards.append(Files(chunk))
    for table in sorted(tables):
        rows = _rows(table, column)
        shards += [Rows(table, column, start, min(start + size, rows)) for start in range(0, rows, size)]
    if not shards:
        raise UsageError(f"{', '.join(inputs)} hold no rows: there is nothing to predict")
    return Listing(tuple(shards), _checksum(shards))


def _found(given: str) -> Iterator[str]:
    if not given:
        raise UsageError("the name of an input is empty: expected a folder, a glob, an image, a Parquet file or a list")
    path = Path(given)
    if path.is_dir():
        found = [str(file) for file in entries_below(path) if _suffix(file) in {*IMAGE_SUFFIXES, ".parquet"}]
        if not found:
            raise UsageError(f"{given} holds no images: expected {', '.join(sorted(IMAGE_SUFFIXES))} or .parquet")
        yield from found
    elif not path.exists() and glob.has_magic(given):
        matches = _matches(given)
        matched = [match for match in matches if not Path(match).is_dir()]
        if not matched:
            raise UsageError(f"nothing matches {given}: expected a pattern of image or Parquet files")
        for match in matched:
            yield from _found(match)
    elif _suffix(path) == ".txt":
        check_input(path, "a list of images, one path a line")
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeError as error:
            raise BadFileError(f"{given} is no list of paths in UTF-8: {error}") from error
        for number, line in enumerate(lines, 1):
            if "\0" in line:
                raise BadFileError(f"{given} is no list of paths: line {number} holds a NUL, which no name has")
        yield from (str(path.parent / line) for line in lines if line.strip())
    elif _suffix(path) in {*IMAGE_SUFFIXES, ".parquet"}:
        check_input(path, "an image or a Parquet file")
        yield given
    elif not path.exists():
        raise UsageError(f"{given} does not exist (expected a folder, a glob, an image, a Parquet file or a list)")
    else:
        raise UsageError(
            f"cannot recognise {given}: expected a folder, a glob, an image, a .parquet file or a .txt list of paths"
        )


def _matches(pattern: str) -> list[str]:
    """What `pattern` matches; raises UsageError for a folder that it leads through and that cannot be read.

    `glob` itself passes over such a folder: its images would be left out without a word.
    """
    parts = Path(pattern).parts
    for index, part in enumerate(parts):
        for ahead in range(index, index + 1 + (part == "**")) if glob.has_magic(part) else ():
            start = os.path.join(*parts[:ahead], "") if ahead else "."  # noqa: PTH118 - its end says that it is a folder
            for folder in _glob(start):
                check_folder(folder)
    return _glob(pattern)


def _glob(pattern: str) -> list[str]:
    return glob.glob(pattern, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern


def _is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _suffix(path: str | Path) -> str:
    return Path(path).suffix.lower()


def _rows(table: str, column: str) -> int:
    """How many rows `table` has; raises where its `column` holds no images."""
    if Path(table).exists() and not Path(table).is_file():
        raise BadFileError(f"{table} is not a file (expected a Parquet file)")
    try:
        with pq.ParquetFile(table) as file:
            schema, rows = file.schema_arrow, file.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        raise BadFileError(f"{table} is not a readable Parquet file: {error}") from error
    if column not in schema.names:
        raise UsageError(
            f"{table} has no column '{column}': name the one with images by --image-column ({', '.join(schema.names)})"
        )
    kind = schema.field(column).type
    if not (_is_image(kind) or (pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0)):
        raise UsageError(f"the column '{column}' of {table} is {kind}, expected images (binary) or paths (string)")
    return int(rows)


def _is_image(kind: pa.DataType) -> bool:
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_string, pa.types.is_large_string)
    return any(test(kind) for test in tests)


def _checksum(shards: Sequence[Shard]) -> str:
    digest = hashlib.sha256()
    for shard in shards:
        lines = shard.paths if isinstance(shard, Files) else (f"{shard.parquet}:{shard.column}:{shard.stop}",)
        for line in lines:
            digest.update(f"{line}\n".encode())
    return digest.hexdigest()
