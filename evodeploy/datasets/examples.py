"""What a data source holds: the name of each image in it, where the image is, and its label."""

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
    """An image, its name in the data source, and its label as the data has it: the name of a class, or a number.

    The name is the same wherever the data lies. Without a label it is None.
    """

    name: str
    image: Path | StoredImage
    label: Label | None = None

    @property
    def place(self) -> tuple[str, int]:
        """Where the image lies: the same for the same image, however it was named."""
        return (str(self.image.resolve()), 0) if isinstance(self.image, Path) else self.image.place


@dataclass(frozen=True)
class Dataset:
    """The images of a data source in a fixed order; `title` is what the source was called.

    `classes` are the data's names of classes in their order, where it has names.
    """

    title: str
    examples: tuple[Example, ...]
    classes: tuple[str, ...] = ()


def size_of(image: Path | StoredImage) -> int | None:
    """The bytes of the file that the image is, or as `StoredImage` says; None where there is no such file."""
    if isinstance(image, StoredImage):
        return image.size
    try:
        return image.stat().st_size
    except OSError:  # what is listed need not be there
        return None


def spread(items: Sequence[T], count: int | None) -> Sequence[T]:
    """`count` of `items`, evenly spread, so that every class of a sorted list has its share; None takes all."""
    total = len(items)
    return items if count is None or count >= total else [items[i * total // count] for i in range(count)]
