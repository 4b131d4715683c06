"""The images that are sent to a server: those of a data source, or one of noise."""

from __future__ import annotations

import heapq
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from evodeploy.datasets.examples import Example
from evodeploy.files import open_regular
from evodeploy.images import StoredImage

LARGEST = 64 << 20  # bytes of an image
HELD = 1 << 30  # bytes of all images
SIZE = (500, 375)  # pixels of the image of noise


def read_pictures(examples: Sequence[Example]) -> list[tuple[Example, bytes]]:
    """Return `examples` with their contents, in their order: from the first on, as many as fit into `HELD` bytes.

    They are read in the order of their places, since going back in a table means to read it again.
    """
    held: list[tuple[int, bytes]] = []  # a heap that pops the last of the examples first
    total, end = 0, len(examples)
    for number in sorted(range(len(examples)), key=lambda number: examples[number].place):
        if number < end:
            contents = _contents(examples[number].image)
            heapq.heappush(held, (-number, contents))
            total += len(contents)
        while total > HELD and len(held) > 1:
            last, dropped = heapq.heappop(held)
            total, end = total - len(dropped), -last
    return [(examples[-number], contents) for number, contents in sorted(held, reverse=True)]


def noise() -> bytes:
    """Return a JPEG of coarse noise."""
    from PIL import Image

    coarse = np.random.default_rng(1).integers(0, 256, (SIZE[1] // 25, SIZE[0] // 25, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


def _contents(image: Path | StoredImage) -> bytes:
    if isinstance(image, StoredImage):
        return image.read()
    with open_regular(image, "an image", LARGEST) as file:
        return file.read()
