"""The inputs of a run: images listed in an order that never varies, and cut into shards."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from evodeploy.batch.output import OutputFolder
from evodeploy.datasets.parquet import rows_of
from evodeploy.datasets.places import CONTAINERS, files_of
from evodeploy.datasets.tars import Member, members_of
from evodeploy.errors import UsageError
from evodeploy.kinds import suffix_of

T = TypeVar("T")


@dataclass(frozen=True)
class Files:
    """Image files, by path."""

    paths: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True)
class Rows:
    """The rows from `start` to before `stop` of a Parquet file whose `column` holds images or their paths."""

    parquet: str
    column: str
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Members:
    """Images of one tar file."""

    tar: str
    members: tuple[Member, ...]

    def __len__(self) -> int:
        return len(self.members)

    @property
    def paths(self) -> tuple[str, ...]:
        """The names in their rows; bytes that are not UTF-8 are escaped, the same as by `predict`."""
        return tuple(str(member).encode("utf-8", "backslashreplace").decode() for member in self.members)


Shard = Files | Rows | Members


@dataclass(frozen=True)
class Listing:
    """All shards of a run, numbered by their position, and a checksum of what they list.

    The checksum covers paths and row counts. It differs for another list of images, but not if an image is replaced
    under the same name.
    """

    shards: tuple[Shard, ...]
    sha256: str

    @property
    def images(self) -> int:
        """The number of images to predict."""
        return sum(map(len, self.shards))

    def files(self) -> Iterator[str]:
        """Yield the path of every image file, and of every tar and Parquet file once for each of its shards."""
        for shard in self.shards:
            yield from (
                shard.paths
                if isinstance(shard, Files)
                else (shard.tar if isinstance(shard, Members) else shard.parquet,)
            )


def list_inputs(inputs: Sequence[str], column: str, size: int, output: OutputFolder | None = None) -> Listing:
    """List folders, globs, image files, tars, Parquet files and lists of paths (.txt), with `size` images per shard.

    A file that is named twice counts once, and the order of `inputs` does not matter. Files that a run writes to
    `output` are skipped, so it may be below an input folder. Raises the errors of `files_of`, `members_of` and
    `rows_of`, and UsageError if the name of a file is not UTF-8.
    """
    left_out = output.has if output else None
    found = {path for given in inputs for path in files_of(given, left_out)}
    absolute = {os.path.abspath(path) for path in found}  # noqa: PTH100 - links are not followed
    if len(absolute) < len(found):  # a file has two names
        found = absolute
    odd = min((path for path in found if not _is_utf8(path)), default=None)
    if odd is not None:
        raise UsageError(f"the name {odd!r} is not UTF-8, so no table can hold it: rename the file or its folder")
    by_kind = {kind: sorted(path for path in found if suffix_of(path) == kind) for kind in CONTAINERS}
    images = sorted(found.difference(*by_kind.values()))
    shards: list[Shard] = [Files(tuple(chunk)) for chunk in _chunks(images, size)]
    for tar in by_kind[".tar"]:
        images_in_tar = [image for image, _ in members_of(Path(tar), labelled=False)]
        shards += [Members(tar, tuple(chunk)) for chunk in _chunks(images_in_tar, size)]
    for table in by_kind[".parquet"]:
        rows = rows_of(Path(table), column)
        shards += [Rows(table, column, start, min(start + size, rows)) for start in range(0, rows, size)]
    if not shards:
        raise UsageError(f"{', '.join(inputs)} hold no rows: there is nothing to predict")
    return Listing(tuple(shards), _checksum(shards))


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _checksum(shards: Sequence[Shard]) -> str:
    digest = hashlib.sha256()
    for shard in shards:
        lines = (f"{shard.parquet}:{shard.column}:{shard.stop}",) if isinstance(shard, Rows) else shard.paths
        for line in lines:
            digest.update(f"{line}\n".encode())
    return digest.hexdigest()
