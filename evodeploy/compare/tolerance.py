"""The differences that rounding may cause, by precision."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass

from evodeploy.specs import Precision, lowest


@dataclass(frozen=True)
class Tolerance:
    """The differences that are accepted as rounding.

    `logits` is relative to the largest magnitude, `score` to the score at the threshold. A logit may differ by
    `absolute` in addition. `reason` names the precision that the tolerance is for, and why.
    """

    logits: float
    score: float
    absolute: float = 0.0
    reason: str = ""


# Scores are softmax outputs, so their relative error is the absolute error of their logits: about 32 units of rounding.
# The steps of INT8 depend on the calibration images, so its tolerance comes from measurements: on the sample, logits
# differ by up to 0.07, and tokens up to 0.04 from the threshold change sides. With FP8, whose mantissa is four bits
# shorter, these are 0.11 and 0.14. A network with large outliers may exceed the tolerance.
TOLERANCES: dict[Precision, Tolerance] = {
    "fp32": Tolerance(1e-4, 1e-4),
    "fp16": Tolerance(1e-2, 1.6e-2),
    "bf16": Tolerance(8e-2, 0.125),
    "int8": Tolerance(0.1, 0.25),
    "fp8": Tolerance(0.25, 0.5),
}


def tolerance_of(precisions: Collection[Precision], tf32: str = "") -> Tolerance:
    """Return the tolerance for the lowest of `precisions`.

    For FP32 in engines whose products may be TF32, which `tf32` names, it is that of FP16: both keep ten bits.
    """
    coarsest = lowest(precisions)
    if coarsest == "fp32" and tf32:
        reason = f"FP16, because FP32 products of {tf32} may be TF32, which, like FP16, keeps ten bits of a factor"
        return dataclasses.replace(TOLERANCES["fp16"], reason=reason)
    return dataclasses.replace(TOLERANCES[coarsest], reason=f"{coarsest.upper()}, the lowest precision of the two")
