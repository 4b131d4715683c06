"""One image with the patches that were left out, or with the scores of its tokens."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

Pixels = NDArray[np.uint8]

# From low to high scores, evenly lighter and warmer: also readable in grey and for colour-blind people.
_SCALE = np.array([(20, 14, 54), (84, 24, 110), (158, 46, 100), (226, 92, 62), (250, 166, 50), (252, 244, 160)], float)
_DIM = np.array((90, 94, 104), float)  # darker than a light image, lighter than a dark one
_LEFT_OUT = 0.6  # how far the patches that were left out fade into it
_MOST = 0.98  # the share of tokens below the lightest colour
_OVERLAY = 0.72  # opacity of the colours over the image


def enlarged(picture: Pixels, width: int) -> Image.Image:
    """Enlarge `picture` by a whole factor to about `width` pixels, so that the pixels of small images stay sharp."""
    factor = max(1, round(width / len(picture)))
    return Image.fromarray(picture).resize((len(picture) * factor,) * 2, Image.Resampling.NEAREST)


def with_kept(image: Image.Image, kept: NDArray[np.bool_]) -> Image.Image:
    """Return `image` with the patches outside `kept` (side, side) grey and dim, and fine lines around the kept ones."""
    mask = Image.fromarray(kept.astype(np.uint8) * 255).resize(image.size, Image.Resampling.NEAREST)
    grey = np.asarray(ImageOps.grayscale(image), float)[..., None]
    faded = Image.fromarray((grey * (1 - _LEFT_OUT) + _DIM * _LEFT_OUT).astype(np.uint8))
    drawn = Image.composite(image, faded, mask)
    _outline(drawn, kept)
    return drawn


def with_scores(image: Image.Image, scores: NDArray[np.float32]) -> Image.Image:
    """Return `image` in grey under the colours of `scores` (side, side), dark for the lowest and light for the highest.

    The highest two percent share one colour: often a few tokens get so much attention that all others would look the
    same.
    """
    low, high = scores.min(), np.quantile(scores, _MOST)
    shares = np.clip((scores - low) / ((high - low) or 1), 0, 1)
    mask = np.asarray(Image.fromarray(shares.astype(np.float32)).resize(image.size, Image.Resampling.NEAREST))
    grey = np.repeat(np.asarray(ImageOps.grayscale(image), float)[..., None], 3, axis=2)
    return Image.fromarray((coloured(mask) * _OVERLAY + grey * (1 - _OVERLAY)).round().astype(np.uint8))


def coloured(shares: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the colours (…, 3), from 0 to 255, of `shares` from 0 to 1."""
    places = np.linspace(0, 1, len(_SCALE))
    return np.stack([np.interp(shares, places, _SCALE[:, channel]) for channel in range(3)], axis=-1)


def _outline(image: Image.Image, kept: NDArray[np.bool_]) -> None:
    """Draw white lines around the kept patches, if the patches are large enough to stay visible."""
    step = image.width / len(kept)
    if step < 8:
        return
    pen = ImageDraw.Draw(image)
    for row, column in np.argwhere(kept):
        x, y = round(column * step), round(row * step)
        pen.rectangle((x, y, round((column + 1) * step) - 1, round((row + 1) * step) - 1), outline=(255, 255, 255))
