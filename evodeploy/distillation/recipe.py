"""The settings of a student's training, as frozen data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from evodeploy.errors import UsageError
from evodeploy.specs import FastPath
from evodeploy.text import brief, ratios_in_words

TrainingPrecision = Literal["fp32", "bf16", "fp16"]
Ratios = tuple[float, ...]  # a keep ratio for each selecting stage

EPOCHS = 8
BATCH = 8  # many small steps at a low rate learn more per image than few large ones (docs/howto/distill.md)
# The default of the largest learning rate. A network that merges tokens is nearly right without training. The rate that
# suits a network whose tokens rest would first destroy what it has learnt.
RATES: dict[FastPath, float] = {"rest": 2e-5, "merge": 5e-6}


@dataclass(frozen=True)
class Recipe:
    """The training settings of one student.

    `keep_ratios` has one entry for each selecting stage. With `elastic` (lowest, highest), each step has one ratio,
    which is one of the ends or drawn between them, and `keep_ratios` is the checkpoint's default. Training lasts for
    `epochs`, or for `minutes`, in which case the result depends on the speed of the machine.

    A step has `batch` images, of which `micro_batch` are computed at once. `rate` is the largest learning rate: it
    rises during the first `warm_up` share of the training, then falls as half a cosine. Small weights get a smaller
    rate. `average` is the decay of the averaged weights, which are the result. `temperature` softens a classifier's
    probabilities, and `label_weight` is the weight of the labels' loss.
    """

    keep_ratios: Ratios
    elastic: tuple[float, float] | None = None
    epochs: float | None = None
    minutes: float | None = None
    batch: int = BATCH
    micro_batch: int = BATCH
    rate: float = RATES["rest"]
    warm_up: float = 0.1
    weight_decay: float = 0.01
    clip: float = 1.0
    average: float = 0.95
    temperature: float = 2.0
    label_weight: float = 0.0
    augment: bool = False
    precision: TrainingPrecision = "fp32"
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings; raises UsageError."""
        if (self.epochs is None) == (self.minutes is None):
            raise UsageError("the length of the training is unclear: give epochs or minutes, not both")
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if value is not None and not (isinstance(value, (int, float)) and low <= value <= high):
                raise UsageError(f"{name} is {brief(repr(value))}, expected a number from {low:g} to {high:g}")
        for name in ("batch", "micro_batch", "seed"):
            if type(getattr(self, name)) is not int:
                raise UsageError(f"{name} is {brief(repr(getattr(self, name)))}, expected a whole number")
        if self.precision not in get_args(TrainingPrecision):
            expected = ", ".join(get_args(TrainingPrecision))
            raise UsageError(f"precision is {brief(repr(self.precision))}, expected one of {expected}")
        if self.elastic is not None:
            low, high = self.elastic
            if not 0 < low < high <= 1:
                raise UsageError(f"elastic is {low:g}:{high:g}, expected LOW:HIGH above 0 and up to 1, such as 0.2:1.0")

    def rate_at(self, progress: float) -> float:
        """Return the learning rate, as a share of its maximum, at the `progress` of the training, from 0 to 1."""
        if progress < self.warm_up:
            return max(progress, 1e-3) / self.warm_up
        left = (progress - self.warm_up) / max(1e-9, 1 - self.warm_up)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, left)))

    def tried(self) -> tuple[Ratios, ...]:
        """Return the keep ratios that the student is evaluated at."""
        if self.elastic is None:
            return (self.keep_ratios,)
        low, high = self.elastic
        shown = sorted({low, high, *(ratio for ratio in SHOWN if low < ratio < high)}, reverse=True)
        return tuple((ratio,) * len(self.keep_ratios) for ratio in shown)

    def in_words(self) -> str:
        """Return a one-line summary."""
        length = f"{self.epochs:g} epochs" if self.minutes is None else f"{self.minutes:g} minutes"
        one = f"keep ratio {ratios_in_words(self.keep_ratios)}"
        kept = one if self.elastic is None else "keep ratios {:g} to {:g}".format(*self.elastic)
        return f"{length}, {kept}, {self.batch} images a step, learning rate {self.rate:g}, {self.precision}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(self).items()
        }


ROUND = (0.0, None, 1.0, None, 0.0, None)  # cycle of elastic steps: 0 is the lowest ratio, 1 the highest, None is drawn
SHOWN = (0.7, 0.5, 0.3)  # keep ratios in the table, between the ends

_RANGES = (
    ("epochs", 1e-3, 1e6),
    ("minutes", 1e-3, 1e6),
    ("batch", 1, 65536),
    ("micro_batch", 1, 65536),
    ("rate", 1e-9, 1.0),
    ("seed", 0, 2**32 - 1),
)


def kept_to_resume(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a `recipe` that must be the same to resume a training: all except `micro_batch`."""
    return {name: value for name, value in recipe.items() if name != "micro_batch"}
