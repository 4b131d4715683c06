"""Checks that a timed row computes the same as its reference: speed is worthless if the results are wrong."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from evodeploy.compare.relative import relative_errors
from evodeploy.compare.tolerance import TOLERANCES
from evodeploy.engines.base import Array
from evodeploy.specs import Precision

SAMPLE = 16  # minimum number of images compared
# The share of images that may deviate by more than rounding explains. If scores nearly tie, reduced precision selects
# other tokens, and the rest of the computation for that image differs. If dropped tokens are merged, more scores nearly
# tie, so the median image decides.
DEVIATING: dict[Precision, float] = {"fp32": 0.0, "fp16": 0.25, "bf16": 0.25, "int8": 0.25, "fp8": 0.25}
DEVIATING_MERGED = 0.5  # instead of 0.25


@dataclass(frozen=True)
class Verdict:
    """One row's outputs compared with its reference's, image by image.

    For each image, the error is the largest difference relative to the reference's largest magnitude. `error` is that
    of the median image, `deviating` the share of images above `limit`, `top1` the share with the same best class, None
    for features. Top-1 does not decide: classes may nearly tie too, and do so in networks with random weights.
    """

    images: int
    error: float
    deviating: float
    limit: float
    allowed: float
    top1: float | None
    problem: str = ""

    @property
    def correct(self) -> bool:
        """Whether the row computes the same as its reference, up to rounding."""
        return not self.problem and self.deviating <= self.allowed

    def __str__(self) -> str:
        return self.problem or (
            f"{self.deviating:.0%} of {self.images} images are off by more than {self.limit:.0e} of the largest "
            f"magnitude (the median image by {self.error:.1e}), at most {self.allowed:.0%} may be"
        )


def judged(
    expected: Array, got: Array, precision: Precision, *, tf32: bool, classifies: bool, merges: bool = False
) -> Verdict:
    """Compare the first output (N, classes) of N images with the reference's, with the tolerance of `precision`.

    `precision` is the lower one of the two. If either may compute its products in TF32, float32 is judged like FP16,
    which rounds as coarsely. If the network `merges` tokens, more images may deviate.
    """
    rounding: Precision = "fp16" if precision == "fp32" and tf32 else precision
    limit = TOLERANCES[rounding].logits
    if got.shape != expected.shape:
        problem = f"its output has shape {got.shape}, expected {expected.shape}"
        return Verdict(len(expected), math.inf, 1.0, limit, 0.0, None, problem)
    errors = relative_errors(expected, got)
    off = ~(errors <= limit)  # true for NaN too
    return Verdict(
        images=len(expected),
        error=float(np.median(errors)),
        deviating=float(off.mean()),
        limit=limit,
        allowed=DEVIATING_MERGED if merges and rounding != "fp32" else DEVIATING[rounding],
        top1=float((expected.argmax(axis=1) == got.argmax(axis=1)).mean()) if classifies else None,
    )
