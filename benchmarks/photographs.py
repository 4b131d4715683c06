"""The project's photographs: reproducible crops of those that scikit-image and scikit-learn ship.

Noise shows nothing about a trained network, so agreement between precisions and engines is measured on these. They are
not part of this repository; `pip install --no-deps scikit-image` and scikit-learn contain the files. Credits:
CREDITS.md. `python benchmarks/photographs.py FOLDER [COUNT]` writes the crops as files, for `evodeploy verify --images
FOLDER`.
"""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from evodeploy.specs import Preprocessing

PLACES = {"skimage": "data", "sklearn": "datasets/images"}
FILES = {
    "astronaut": "skimage/astronaut.png",
    "camera": "skimage/camera.png",
    "cat": "skimage/chelsea.png",
    "coffee": "skimage/coffee.png",
    "rocket": "skimage/rocket.jpg",
    "coins": "skimage/coins.png",
    "clock": "skimage/clock_motion.png",
    "flower": "sklearn/flower.jpg",
    "china": "sklearn/china.jpg",
}
AREA = (0.15, 1.0)  # share of the photograph that a crop covers
ASPECT = (3 / 4, 4 / 3)  # width over height


def photographs() -> dict[str, Image.Image]:
    """Return all photographs by name, in RGB, in their original size."""
    return {name: Image.open(_path(file)).convert("RGB") for name, file in FILES.items()}


def _path(file: str) -> Path:
    package, name = file.split("/")
    found = importlib.util.find_spec(package)
    path = Path(found.origin).parent / PLACES[package] / name if found and found.origin else None
    if path is None or not path.is_file():
        sys.exit(f"{name} was not found: pip install --no-deps scikit-image; pip install scikit-learn")
    return path


def crops(count: int = 300, size: int = 224, seed: int = 0) -> list[Image.Image]:
    """Return `count` random crops with sides of `size` pixels, from each photograph in turn, half of them mirrored.

    The first n of a larger set are the same as a set of n.
    """
    sources = list(photographs().values())
    return [_crop(sources[index % len(sources)], size, (seed, index)) for index in range(count)]


def _crop(photograph: Image.Image, size: int, seed: tuple[int, int]) -> Image.Image:
    random = np.random.Generator(np.random.PCG64(seed))
    area = random.uniform(*AREA) * photograph.width * photograph.height
    aspect = math.exp(random.uniform(*map(math.log, ASPECT)))
    width = min(photograph.width, max(1, round(math.sqrt(area * aspect))))
    height = min(photograph.height, max(1, round(math.sqrt(area / aspect))))
    left = int(random.integers(photograph.width - width + 1))
    top = int(random.integers(photograph.height - height + 1))
    box = (left, top, left + width, top + height)
    crop = photograph.resize((size, size), Image.Resampling.BICUBIC, box)
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 else crop


def tensors(images: list[Image.Image], preprocessing: Preprocessing | None = None) -> NDArray[np.float32]:
    """Return `images`, all of one size, as a normalised float32 batch (n, 3, size, size)."""
    how = preprocessing or Preprocessing()
    mean, std = np.array(how.mean, np.float32), np.array(how.std, np.float32)
    pixels = np.stack([np.asarray(image, np.float32) for image in images]) / 255
    return np.ascontiguousarray(((pixels - mean) / std).transpose(0, 3, 1, 2))


def batch(count: int = 300, size: int = 224, seed: int = 0) -> NDArray[np.float32]:
    """Return the photograph set as a normalised float32 batch (count, 3, size, size)."""
    return tensors(crops(count, size, seed))


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "photographs")
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(crops(int(sys.argv[2]) if len(sys.argv) > 2 else 300)):
        image.save(folder / f"{number:03}-{list(FILES)[number % len(FILES)]}.png")
    print(folder)
