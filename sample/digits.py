"""The data set: scikit-learn's handwritten digits as 64x64 pictures, with a fixed split.

Nothing here is random: every fourth picture of each class is held out, in scikit-learn's order. Pictures get the same
transform as in a deployed predictor, so that training and deployment see the same pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor

from evodeploy.preprocess import cropped, normalised
from evodeploy.specs import Preprocessing

IMAGE_SIZE = 64
CLASS_NAMES = tuple("0123456789")
_INK_LEVELS = 16  # the data set counts the inked pixels of each 4x4 cell


@dataclass(frozen=True)
class Pictures:
    """One side of the split: `images` (n, 3, 64, 64), normalised, and their `labels` (n,)."""

    images: Tensor
    labels: Tensor


def picture(cells: NDArray[np.float64]) -> Image.Image:
    """Return the 8x8 `cells` of one digit as a 64x64 grey picture, white on black."""
    grey = np.round(cells * (255 / _INK_LEVELS)).astype(np.uint8)
    return Image.fromarray(grey).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)


def split() -> tuple[Pictures, Pictures]:
    """Return the training pictures and the held-out ones, about three to one in every class."""
    digits = load_digits()
    held = _held_out(digits.target)
    return _prepared(digits.images[~held], digits.target[~held]), _prepared(digits.images[held], digits.target[held])


def write_held_out(folder: Path) -> int:
    """Write every held-out picture to `folder`, in a folder for each class. Returns their number."""
    return _write(folder, _held_out(load_digits().target))


def write_training(folder: Path) -> int:
    """Write the training pictures in the same way, for example to calibrate INT8. Returns their number."""
    return _write(folder, ~_held_out(load_digits().target))


def _write(folder: Path, chosen: NDArray[np.bool_]) -> int:
    digits = load_digits()
    for number in np.flatnonzero(chosen):
        home = folder / CLASS_NAMES[digits.target[number]]
        home.mkdir(parents=True, exist_ok=True)
        picture(digits.images[number]).save(home / f"{number}.png")
    return int(chosen.sum())


def save_examples(folder: Path) -> None:
    """Write the first held-out picture of each class to `folder`, as digit-CLASS-0.png."""
    digits = load_digits()
    held = _held_out(digits.target)
    folder.mkdir(parents=True, exist_ok=True)
    for label, name in enumerate(CLASS_NAMES):
        first = digits.images[held & (digits.target == label)][0]
        picture(first).save(folder / f"digit-{name}-0.png", optimize=True)


def black() -> Tensor:
    """Return the normalised value of pixels without ink: (3, 1, 1)."""
    blank = cropped(Image.new("L", (IMAGE_SIZE, IMAGE_SIZE)), IMAGE_SIZE, Preprocessing())
    return torch.from_numpy(normalised(blank[None], Preprocessing()))[0, :, :1, :1]


def _held_out(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    held = np.zeros(len(labels), dtype=bool)
    for label in range(len(CLASS_NAMES)):
        held[np.flatnonzero(labels == label)[::4]] = True
    return held


def _prepared(cells: NDArray[np.float64], labels: NDArray[np.int64]) -> Pictures:
    seen = np.stack([cropped(picture(digit), IMAGE_SIZE, Preprocessing()) for digit in cells])
    return Pictures(torch.from_numpy(normalised(seen, Preprocessing())), torch.from_numpy(labels).long())
