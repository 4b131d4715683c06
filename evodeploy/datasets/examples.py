"""The contents of a data source: for each image its name, its place, and its label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from evodeploy.images import StoredImage

T = TypeVar("T")

Label = str | int


@dataclass(frozen=True, slots=True)
class Example:
    """An image, its name in the data source, and its label in the data: the name of a class, or a number.

    The name does not depend on where the data is stored. The label is None if there is none.
    """

    name: str
    image: Path | StoredImage
    label: Label | None = None

    @property
    def place(self) -> tuple[str, int]:
        """The place of the image, which identifies it however it was named."""
        return (str(self.image.resolve()), 0) if isinstance(self.image, Path) else self.image.place


@dataclass(frozen=True)
class Dataset:
    """The images of a data source in a fixed order; `title` is the name of the source.

    `classes` are the names of the data's classes in their order, if it has names.
    """

    title: str
    examples: tuple[Example, ...]
    classes: tuple[str, ...] = ()


def size_of(image: Path | StoredImage) -> int | None:
    """Return the bytes of the image file, or the size of a `StoredImage`; None if there is no such file."""
    if isinstance(image, StoredImage):
        return image.size
    try:
        return image.stat().st_size
    except OSError:  # listed files may be missing
        return None


def spread(items: Sequence[T], count: int | None) -> Sequence[T]:
    """Return `count` of `items`, evenly spread, so that every class of a sorted list has its share; None takes all."""
    total = len(items)
    return items if count is None or count >= total else [items[i * total // count] for i in range(count)]
