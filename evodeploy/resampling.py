"""A part of a resized image without the rest: for images so long that all of it would fill any memory.

The arithmetic is Pillow's, in its order and in its fixed point, so that the pixels are those of its `resize`. It is
slower, and used where one side is more than a hundred times the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evodeploy.specs import Interpolation

_BITS = 22  # behind the point of a weight


@dataclass(frozen=True)
class Taps:
    """What each of some pixels of the resized side is made of: the first pixel of the source, and weights from there.

    `start` and `end` bound the pixels of the source that all of them need.
    """

    weights: tuple[tuple[int, NDArray[np.int64]], ...]
    start: int
    end: int


def taps(side: int, resized: int, first: int, count: int, interpolation: Interpolation) -> Taps:
    """For `count` pixels from `first` on, of `side` pixels resized to `resized`."""
    made = _nearest(side, resized, first, count) if interpolation == "nearest" else None
    weights = made or tuple(_weights(side, resized, at, interpolation) for at in range(first, first + count))
    return Taps(weights, min(at for at, _ in weights), max(at + len(each) for at, each in weights))


def rows(pixels: NDArray[np.uint8], made: Taps) -> NDArray[np.uint8]:
    """Return the rows that `made` describes, of the source's rows from `made.start` on: (count, width, channels)."""
    result = np.empty((len(made.weights), *pixels.shape[1:]), np.uint8)
    for row, (at, weights) in enumerate(made.weights):
        window = pixels[at - made.start : at - made.start + len(weights)].astype(np.int64)
        total = np.tensordot(weights, window, 1) + (1 << (_BITS - 1))
        result[row] = np.clip(total >> _BITS, 0, 255)
    return result


def _nearest(side: int, resized: int, first: int, count: int) -> tuple[tuple[int, NDArray[np.int64]], ...]:
    """Positions are summed up step by step, as Pillow does: their rounding is its."""
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
    for value in values:  # one after the other: sum() rounds less often than Pillow
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
