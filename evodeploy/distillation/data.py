"""The images of a distillation: listed, split into training and held-out ones, and kept in memory if they fit."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evodeploy.datasets.examples import Example, Label, size_of, spread
from evodeploy.datasets.labelled import matching_of
from evodeploy.datasets.sources import dataset_of
from evodeploy.errors import BadFileError, EvodeployError, UsageError
from evodeploy.images import open_image
from evodeploy.machine.cores import usable_cores
from evodeploy.preprocess import cropped
from evodeploy.specs import ModelInfo

_log = logging.getLogger(__name__)

HELD_OUT = 5  # every fifth image is held out if there are no separate ones
MOST_EVALUATED = 2000  # images, evenly spread
IN_MEMORY = 2 << 30  # the most bytes of images to keep in memory
LEAST = 10  # the fewest images to train on

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Listing:
    """The images of the data source `title` in a fixed order, and their labels: class numbers, or None without any."""

    title: str
    examples: tuple[Example, ...]
    labels: tuple[int, ...] | None = None
    classes: tuple[Label, ...] = ()

    def __len__(self) -> int:
        return len(self.examples)

    def chosen(self, indices: Iterable[int]) -> Listing:
        """Return the images at `indices`."""
        kept = list(indices)
        labels = None if self.labels is None else tuple(self.labels[i] for i in kept)
        return Listing(self.title, tuple(self.examples[i] for i in kept), labels, self.classes)

    def limited(self, count: int) -> Listing:
        """Return at most `count` of the images, evenly spread."""
        return self.chosen(spread(range(len(self)), count))

    def checksum(self) -> str:
        """Return the SHA-256 of names, sizes and labels, which does not depend on the folder's location."""
        names = [[example.name, size_of(example.image)] for example in self.examples]
        return hashlib.sha256(json.dumps([names, self.labels]).encode()).hexdigest()


def listed(
    source: Path, info: ModelInfo, labels: bool, classes: tuple[Label, ...] = (), class_map: Path | None = None
) -> Listing:
    """List the images of a data source; with `labels` also their classes.

    A classifier's classes are matched in the same way as in `evodeploy eval`. For a network without a classifier they
    are `classes`, or those of the data. Raises UsageError if there are no images, or no such classes.
    """
    dataset = dataset_of(source)
    if not labels:
        return Listing(dataset.title, dataset.examples)
    numbers: Mapping[Label, int]
    stated = {each.label for each in dataset.examples if isinstance(each.label, int)}
    own: tuple[Label, ...] = dataset.classes or tuple(sorted(stated))
    if info.num_classes:
        numbers = matching_of(dataset, info, class_map).numbers
    else:
        numbers = {name: number for number, name in enumerate(classes or own)}
        if len(numbers) < 2 or not any(example.label in numbers for example in dataset.examples):
            raise UsageError(f"{dataset.title} has no images of two classes or more: leave out labels")
    kept = tuple(each for each in dataset.examples if each.label is not None and each.label in numbers)
    if left := len(dataset.examples) - len(kept):
        _log.warning("%d images of %s are in no class, and are left out", left, dataset.title)
    return Listing(dataset.title, kept, tuple(numbers[each.label] for each in kept if each.label is not None), own)


def held_out(listing: Listing) -> tuple[Listing, Listing]:
    """Split off every fifth image: return those to train on, and those held out. Raises UsageError for too few."""
    if len(listing) < LEAST * 2:
        raise UsageError(f"{listing.title} has {len(listing)} images, expected {LEAST * 2} or more: add images")
    held = range(0, len(listing), HELD_OUT)
    return listing.chosen(i for i in range(len(listing)) if i % HELD_OUT), listing.chosen(held)


class Pictures:
    """The images of a listing, cropped for the model of `info`; for use by one thread.

    Images are read when first needed, and kept in memory if all of them fit. An image that cannot be read is replaced
    by the next readable one of the same class, so that its label stays right. The listing does not change, so a
    training that began with it can be resumed.
    """

    def __init__(self, listing: Listing, info: ModelInfo) -> None:
        self.listing = listing
        self._info = info
        size = info.image_size
        self._shape = (size, size, 3)
        fits = len(listing) * size * size * 3 <= IN_MEMORY
        self._kept: dict[int, Pixels] | None = {} if fits else None
        self._replaced: set[int] = set()
        self._pool = ThreadPoolExecutor(usable_cores(), thread_name_prefix="evodeploy-read")

    def __len__(self) -> int:
        return len(self.listing)

    def close(self) -> None:
        """Stop the reading threads."""
        self._pool.shutdown(cancel_futures=True)

    def in_turn(self, batches: Iterable[Sequence[int]]) -> Iterator[Pixels]:
        """Yield the pixels (n, S, S, 3) of each of `batches` of indices; the next batch is read while one is used.

        Raises BadFileError if neither an image nor another of its class can be read.
        """
        waiting = None
        for batch in batches:
            reading = [(index, self._pool.submit(self._read, index)) for index in batch]
            if waiting is not None:
                yield self._stacked(waiting)
            waiting = reading
        if waiting is not None:
            yield self._stacked(waiting)

    def _stacked(self, reading: list[tuple[int, Future[Pixels]]]) -> Pixels:
        pictures = [self._result(index, picture) for index, picture in reading]
        return np.stack(pictures) if pictures else np.zeros((0, *self._shape), np.uint8)

    def _result(self, index: int, reading: Future[Pixels]) -> Pixels:
        try:
            return reading.result()
        except EvodeployError as error:
            failed = f"{self.listing.examples[index].image} cannot be used: {error}"
            picture = self._next(index)
            if picture is None:
                raise BadFileError(
                    f"{failed}: nor can another image of its class: restore it, or remove it and start over"
                ) from error
        if index not in self._replaced:
            _log.warning("%s: the next image takes its place", failed)
        self._replaced.add(index)
        return self._keep(index, picture)

    def _next(self, index: int) -> Pixels | None:
        """Return the next readable image of the same class as that at `index`, starting over after the last image."""
        labels = self.listing.labels
        for other in (*range(index + 1, len(self)), *range(index)):
            if labels is None or labels[other] == labels[index]:
                with contextlib.suppress(EvodeployError):
                    return self._read(other)
        return None

    def _read(self, index: int) -> Pixels:
        known = None if self._kept is None else self._kept.get(index)
        if known is not None:
            return known
        image = open_image(self.listing.examples[index].image)
        return self._keep(index, cropped(image, self._info.image_size, self._info.preprocessing))

    def _keep(self, index: int, picture: Pixels) -> Pixels:
        if self._kept is not None:
            self._kept[index] = picture
        return picture
