"""What rounding may change, by precision."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass

from evodeploy.specs import Precision


@dataclass(frozen=True)
class Tolerance:
    """What rounding may do. `logits` is relative to the largest magnitude; `score` to the score at the threshold.

    A logit may be off by `absolute` in addition. `reason` says whose tolerance it is, and why.
    """

    logits: float
    score: float
    absolute: float = 0.0
    reason: str = ""


# Scores are softmax outputs, so their relative error is the absolute error of their logits: about 32 units of rounding.
# INT8's steps depend on the images of its calibration, so its tolerance is from what was seen: on the sample logits
# move by up to 0.07 and tokens change sides up to 0.04 from the threshold. FP8, whose mantissa is shorter by four bits,
# moves them by 0.11, and tokens 0.14. A network with large outliers may well fail.
TOLERANCES: dict[Precision, Tolerance] = {
    "fp32": Tolerance(1e-4, 1e-4),
    "fp16": Tolerance(1e-2, 1.6e-2),
    "bf16": Tolerance(8e-2, 0.125),
    "int8": Tolerance(0.1, 0.25),
    "fp8": Tolerance(0.25, 0.5),
}


def lowest(precisions: Collection[Precision]) -> Precision:
    """The one of `precisions` that rounds most."""
    return max(precisions, key=lambda precision: TOLERANCES[precision].logits)


def tolerance_of(precisions: Collection[Precision], tf32: str = "") -> Tolerance:
    """What the lowest of `precisions` may do.

    Of FP32 in an engine whose products may be TF32, named by `tf32`, it is what FP16 may do: both keep ten bits.
    """
    coarsest = lowest(precisions)
    if coarsest == "fp32" and tf32:
        reason = f"FP16, for FP32 products of {tf32} may be TF32, which keeps ten bits of a factor as FP16 does"
        return dataclasses.replace(TOLERANCES["fp16"], reason=reason)
    return dataclasses.replace(TOLERANCES[coarsest], reason=f"{coarsest.upper()}, the lowest precision of the two")
