"""Two real data sets with classes, as folders: `python benchmarks/labelled_sets.py FOLDER`.

FOLDER/digits: handwritten digits at 224 px, 1195 to train on and 599 to test on. FOLDER/photographs: squares of nine
photographs, 648 of each; the class is the photograph. Squares to train on and to test on alternate like the fields of a
chess board, and share no pixel.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from digits_probe import SIZE, digits
from photographs import photographs
from PIL import Image

BICUBIC = Image.Resampling.BICUBIC
FIELDS = 12  # in a row of a photograph, and in a column


def main() -> None:
    """Write both data sets."""
    folder = Path(sys.argv[1])
    for part, (images, classes) in zip(("train", "test"), digits(1195, 599), strict=True):
        save(folder / "digits" / part, images, classes)
    for part, colour in (("train", 0), ("test", 1)):
        for name, photograph in photographs().items():
            squares = fields(photograph, colour)
            save(folder / "photographs" / part, squares, [name] * len(squares))
    print(folder)


def fields(photograph: Image.Image, colour: int) -> list[Image.Image]:
    """Return the fields of one `colour`, 0 or 1, as pictures of the network's input size."""
    width, height = photograph.width / FIELDS, photograph.height / FIELDS
    return [
        photograph.crop((x * width, y * height, (x + 1) * width, (y + 1) * height)).resize((SIZE, SIZE), BICUBIC)
        for y in range(FIELDS)
        for x in range(FIELDS)
        if (x + y) % 2 == colour
    ]


def save(folder: Path, images: list[Image.Image], classes: Iterable[object] | None = None) -> None:
    """Write the pictures into a folder for each class, or without `classes` into `folder` itself."""
    homes = [folder] * len(images) if classes is None else [folder / str(each) for each in classes]
    for number, (image, home) in enumerate(zip(images, homes, strict=True)):
        home.mkdir(parents=True, exist_ok=True)
        image.save(home / f"{number:04}.png")


if __name__ == "__main__":
    main()
