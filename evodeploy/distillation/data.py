"""The pictures of a distillation: which to train on and which to hold out, read once where memory holds them."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evodeploy.errors import BadFileError, EvodeployError, UsageError
from evodeploy.evaluation.data import labelled_images
from evodeploy.images import image_paths, open_image
from evodeploy.machine.cores import usable_cores
from evodeploy.preprocess import cropped
from evodeploy.specs import ModelInfo

_log = logging.getLogger(__name__)

HELD_OUT = 5  # every fifth picture is held out where no others are given
MOST_EVALUATED = 2000  # pictures, evenly spread
IN_MEMORY = 2 << 30  # bytes of pictures that are kept
LEAST = 10  # pictures to train on

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Listing:
    """Picture files in a fixed order, and their labels: numbers of classes, or None without labels."""

    folder: Path
    paths: tuple[Path, ...]
    labels: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def chosen(self, indices: Iterable[int]) -> Listing:
        """Those at `indices`."""
        kept = list(indices)
        labels = None if self.labels is None else tuple(self.labels[i] for i in kept)
        return Listing(self.folder, tuple(self.paths[i] for i in kept), labels)

    def limited(self, count: int) -> Listing:
        """`count` of them at most, evenly spread."""
        total = len(self)
        return self if total <= count else self.chosen(i * total // count for i in range(count))

    def checksum(self) -> str:
        """SHA-256 of names, sizes and labels: the same for the same pictures, wherever their folder lies."""
        names = [[str(path.relative_to(self.folder)), path.stat().st_size] for path in self.paths]
        return hashlib.sha256(json.dumps([names, self.labels]).encode()).hexdigest()


def listed(folder: Path, info: ModelInfo, labels: bool, classes: tuple[str, ...] = ()) -> Listing:
    """The pictures below `folder`; with `labels` a folder of the first level is a class.

    A classifier's classes are matched as `evodeploy eval` does it. Of a network without one they are `classes`, or the
    folders in sorted order. Raises UsageError where there are no pictures, or no such classes.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder: expected one of pictures")
    if not labels:
        return Listing(folder, tuple(image_paths(folder)))
    listing = _labelled(folder, info, classes)
    if left := len(image_paths(folder)) - len(listing):
        _log.warning("%d pictures below %s lie in no class folder, and are left out", left, folder)
    return listing


def _labelled(folder: Path, info: ModelInfo, classes: tuple[str, ...]) -> Listing:
    if info.num_classes:
        labelled = labelled_images(folder, None, info).images
        return Listing(folder, tuple(image.path for image in labelled), tuple(image.label for image in labelled))
    known = {name: number for number, name in enumerate(classes or class_folders(folder))}
    paths = [path for path in image_paths(folder) if path.relative_to(folder).parts[0] in known]
    if len(known) < 2 or not paths:
        raise UsageError(f"{folder} has no pictures in folders of two classes or more: leave out labels")
    return Listing(folder, tuple(paths), tuple(known[path.relative_to(folder).parts[0]] for path in paths))


def class_folders(folder: Path) -> tuple[str, ...]:
    """The folders of the first level, sorted."""
    return tuple(sorted(path.name for path in folder.iterdir() if path.is_dir()))


def held_out(listing: Listing) -> tuple[Listing, Listing]:
    """The pictures to train on, and every fifth, which is not trained on. Raises UsageError for too few."""
    if len(listing) < LEAST * 2:
        raise UsageError(f"{listing.folder} has {len(listing)} pictures, expected {LEAST * 2} or more: add pictures")
    held = range(0, len(listing), HELD_OUT)
    return listing.chosen(i for i in range(len(listing)) if i % HELD_OUT), listing.chosen(held)


class Pictures:
    """The pictures of a listing as `info`'s model sees them; to be used by one thread.

    They are read when first taken, and kept where all of them fit into memory.
    """

    def __init__(self, listing: Listing, info: ModelInfo) -> None:
        self.listing = listing
        self._info = info
        size = info.image_size
        self._shape = (size, size, 3)
        fits = len(listing) * size * size * 3 <= IN_MEMORY
        self._kept: dict[int, Pixels] | None = {} if fits else None
        self._pool = ThreadPoolExecutor(usable_cores(), thread_name_prefix="evodeploy-read")

    def __len__(self) -> int:
        return len(self.listing)

    def close(self) -> None:
        """End the reading threads."""
        self._pool.shutdown(cancel_futures=True)

    def in_turn(self, batches: Iterable[Sequence[int]]) -> Iterator[Pixels]:
        """The pixels (n, S, S, 3) of each of `batches` of indices; the next is read while one is used.

        Raises BadFileError for a picture that cannot be read.
        """
        waiting = None
        for batch in batches:
            reading = [self._pool.submit(self._read, index) for index in batch]
            if waiting is not None:
                yield self._stacked([each.result() for each in waiting])
            waiting = reading
        if waiting is not None:
            yield self._stacked([each.result() for each in waiting])

    def _stacked(self, pictures: list[Pixels]) -> Pixels:
        return np.stack(pictures) if pictures else np.zeros((0, *self._shape), np.uint8)

    def _read(self, index: int) -> Pixels:
        known = None if self._kept is None else self._kept.get(index)
        if known is not None:
            return known
        path = self.listing.paths[index]
        try:
            picture = cropped(open_image(path), self._info.image_size, self._info.preprocessing)
        except EvodeployError as error:
            raise BadFileError(f"{path} cannot be trained on: {error}: remove it") from error
        if self._kept is not None:
            self._kept[index] = picture
        return picture
