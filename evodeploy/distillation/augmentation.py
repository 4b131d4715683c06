"""Augmentation: random changes of the images in each step, and a check of whether the images allow them."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

FEW = 500  # images; fewer are not augmented
LEAST_AREA = 0.5  # of the image that a crop covers
ASPECT = 4 / 3  # largest ratio of a crop's sides
LIGHT = 0.2  # largest change of brightness and of contrast
GREY = 4.0  # mean difference between channels, of 255, below which images have no colour
EXTREME = 16  # levels from black or white that count as nearly black or white
WRITTEN = 0.6  # share of such pixels above which images count as writing or drawings


def reason_not_to(count: int, sample: NDArray[np.uint8]) -> str | None:
    """Return why `count` images, with the `sample` (n, S, S, 3), should not be augmented; None if they should.

    Mirrored writing cannot be read, and the grey levels and the sides of a scan or an X-ray have a meaning.
    """
    if count < FEW:
        return f"{count} images are few (less than {FEW})"
    colour = float((sample.max(axis=3).astype(np.int16) - sample.min(axis=3)).mean())
    if colour < GREY:
        return "the images have no colour, like writing, scans and drawings"
    flat = float(((sample < EXTREME) | (sample >= 256 - EXTREME)).mean())
    return "most of the images is black or white, like writing and drawings" if flat > WRITTEN else None


NUMBERS = 7  # random numbers for each image


def augmented(images: Tensor, numbers: Tensor) -> Tensor:
    """Crop `images` (B, 3, S, S), from 0 to 1, mirror half of them, and change their contrast and brightness.

    `numbers` (B, 7), from 0 to 1, decide how.
    """
    area, aspect, left, top, side, contrast, light = numbers.to(images.device).unbind(dim=1)
    area, aspect = (LEAST_AREA + (1 - LEAST_AREA) * area).sqrt(), ((aspect - 0.5) * math.log(ASPECT)).exp()
    width, height = (area * aspect).clamp(max=1), (area / aspect).clamp(max=1)
    across, down = (2 * left - 1) * (1 - width), (2 * top - 1) * (1 - height)
    none = torch.zeros_like(width)
    mirrored = torch.where(side < 0.5, -width, width)
    maps = [torch.stack([mirrored, none, across], dim=1), torch.stack([none, height, down], dim=1)]
    grid = F.affine_grid(torch.stack(maps, dim=1), list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    mean = moved.mean(dim=(1, 2, 3), keepdim=True)
    return ((moved - mean) * _factor(contrast) + mean * _factor(light)).clamp(0, 1)


def _factor(number: Tensor) -> Tensor:
    return (1 + LIGHT * (2 * number - 1)).reshape(-1, 1, 1, 1)
