"""Resizing of a part of an image without the rest, for images so long that the whole result would not fit in memory.

The arithmetic is the same as Pillow's, in the same order and in fixed point, so that the pixels equal those of its
`resize`. It is slower, and only used if one side is more than a hundred times the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evodeploy.specs import Interpolation

_BITS = 22  # fraction bits of a weight


@dataclass(frozen=True)
class Taps:
    """How some pixels of the resized side are computed: for each the first source pixel, and the weights from there on.

    `start` and `end` bound the source pixels that all of them together need.
    """

    weights: tuple[tuple[int, NDArray[np.int64]], ...]
    start: int
    end: int


def taps(side: int, resized: int, first: int, count: int, interpolation: Interpolation) -> Taps:
    """Return the taps of `count` pixels, from `first` on, of a side of `side` pixels resized to `resized`."""
    made = _nearest(side, resized, first, count) if interpolation == "nearest" else None
    weights = made or tuple(_weights(side, resized, at, interpolation) for at in range(first, first + count))
    return Taps(weights, min(at for at, _ in weights), max(at + len(each) for at, each in weights))


def rows(pixels: NDArray[np.uint8], made: Taps) -> NDArray[np.uint8]:
    """Compute the rows that `made` describes from the source's rows `made.start` onwards: (count, width, channels)."""
    result = np.empty((len(made.weights), *pixels.shape[1:]), np.uint8)
    for row, (at, weights) in enumerate(made.weights):
        window = pixels[at - made.start : at - made.start + len(weights)].astype(np.int64)
        total = np.tensordot(weights, window, 1) + (1 << (_BITS - 1))
        result[row] = np.clip(total >> _BITS, 0, 255)
    return result


def _nearest(side: int, resized: int, first: int, count: int) -> tuple[tuple[int, NDArray[np.int64]], ...]:
    """Return the taps of the nearest pixels. Positions are summed step by step, to be rounded the same as in Pillow."""
    step = side / resized
    steps = np.full(first + count, step)
    steps[0] = step * 0.5
    whole = np.array([1 << _BITS], np.int64)
    return tuple((min(int(at), side - 1), whole) for at in np.cumsum(steps)[first:])


def _weights(side: int, resized: int, at: int, interpolation: Interpolation) -> tuple[int, NDArray[np.int64]]:
    reach, kernel = _KERNELS[interpolation]
    scale = side / resized
    stretch = max(scale, 1.0)
    centre, shrink = (at + 0.5) * scale, 1.0 / stretch
    start = max(0, int(centre - reach * stretch + 0.5))
    end = min(side, int(centre + reach * stretch + 0.5))
    values = [kernel((position - centre + 0.5) * shrink) for position in range(start, end)]
    total = 0.0
    for value in values:  # one by one: sum() rounds less often than Pillow
        total += value
    shares = [value / total for value in values] if total else values
    fixed = [math.trunc(share * (1 << _BITS) + math.copysign(0.5, share)) for share in shares]
    return start, np.array(fixed, np.int64)


def _bilinear(x: float) -> float:
    return max(1.0 - abs(x), 0.0)


def _bicubic(x: float) -> float:
    x = abs(x)
    if x < 1.0:
        return (1.5 * x - 2.5) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * -0.5 if x < 2.0 else 0.0


def _lanczos(x: float) -> float:
    return _sinc(x) * _sinc(x / 3) if -3.0 <= x < 3.0 else 0.0


def _sinc(x: float) -> float:
    return math.sin(x * math.pi) / (x * math.pi) if x else 1.0


_KERNELS: dict[str, tuple[float, Callable[[float], float]]] = {
    "bilinear": (1.0, _bilinear),
    "bicubic": (2.0, _bicubic),
    "lanczos": (3.0, _lanczos),
}
