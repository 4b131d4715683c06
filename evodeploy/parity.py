"""Do two engines compute the same? Output by output, on the same images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from evodeploy.engines.base import Array, Engine

FP32_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Check:
    """One output compared at one batch size.

    `error` is the largest difference relative to the reference's largest magnitude; for selections, the share of
    images whose sets of kept tokens differ.
    """

    output: str
    batch: int
    error: float
    limit: float
    detail: str

    @property
    def passed(self) -> bool:
        """Whether the error is within the limit; NaN never is."""
        return self.error <= self.limit


def compare(reference: Engine, candidate: Engine, images: Array, tolerance: float = FP32_TOLERANCE) -> Iterator[Check]:
    """Run both on `images` and compare each output that the candidate has."""
    expected, got = reference.run(images), candidate.run(images)
    for name, value in got.items():
        if name == "classes":
            yield _classes(expected, got, tolerance)
        else:
            check = _selections if name.startswith("selected_") else _numbers
            yield check(name, expected[name], value, tolerance)


def _numbers(name: str, expected: Array, got: Array, tolerance: float) -> Check:
    if expected.shape != got.shape:
        return Check(name, len(expected), np.inf, tolerance, f"shape {got.shape}, expected {expected.shape}")
    scale = float(np.abs(expected).max()) or 1.0
    errors = np.abs(expected - got).reshape(len(expected), -1).max(axis=1) / scale
    error = float(errors.max())
    detail = f"largest difference {error:.1e} of the largest magnitude, limit {tolerance:.0e}"
    if not error <= tolerance:
        detail += f"; worst at image {int(errors.argmax())}"
    return Check(name, len(expected), error, tolerance, detail)


def _classes(expected: dict[str, Array], got: dict[str, Array], tolerance: float) -> Check:
    """The ranked classes, where their ranks are clear: of probabilities that nearly tie either may come first."""
    ours, theirs, probabilities = expected["classes"], got["classes"], expected["probabilities"]
    if ours.shape != theirs.shape:
        return Check("classes", len(ours), np.inf, 0.0, f"shape {theirs.shape}, expected {ours.shape}")
    tied = np.abs(np.diff(probabilities, axis=1)) <= tolerance * probabilities.max()
    last = np.ones((len(ours), 1), bool)  # the next class is not known
    clear = ~(np.concatenate([tied, last], axis=1) | np.concatenate([~last, tied], axis=1))
    differ = ((ours != theirs) & clear).any(axis=1)
    detail = "the same classes" if not differ.any() else f"other classes in {int(differ.sum())} images"
    return Check("classes", len(ours), float(differ.mean()), 0.0, detail)


def _selections(name: str, expected: Array, got: Array, _: float) -> Check:
    if expected.shape != got.shape:
        return Check(name, len(expected), np.inf, 0.0, f"shape {got.shape}, expected {expected.shape}")
    differ = (np.sort(expected, axis=1) != np.sort(got, axis=1)).any(axis=1)
    detail = "the same tokens kept"
    if differ.any():
        image = int(differ.argmax())
        lost, won = set(expected[image]) - set(got[image]), set(got[image]) - set(expected[image])
        detail = f"other tokens kept in {int(differ.sum())} images; image {image}: {len(won)} others for {len(lost)}"
    return Check(name, len(expected), float(differ.mean()), 0.0, detail)
