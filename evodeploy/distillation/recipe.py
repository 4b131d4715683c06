"""How a student is trained, as frozen data."""

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
BATCH = 8  # many small steps at a low rate learn more from as many pictures than few large ones (docs/howto/distill.md)
# The largest learning rate by default. Tokens that merge leave an untrained network nearly right: a rate from which one
# whose tokens rest recovers would first destroy what is there.
RATES: dict[FastPath, float] = {"rest": 2e-5, "merge": 5e-6}


@dataclass(frozen=True)
class Recipe:
    """The training of one student.

    `keep_ratios` has one entry for each selecting stage. With `elastic` (lowest, highest) each step has one ratio, an
    end or one drawn between, and `keep_ratios` is what the checkpoint uses by default. Training lasts `epochs`, or
    `minutes` where they are given: then its length is that of the clock, and the result depends on the machine's speed.

    `batch` pictures make a step, `micro_batch` of them are computed at once. `rate` is the largest learning rate: it
    rises over the share `warm_up` of the training, then falls as half a cosine; small weights have less of it.
    `average` is the decay of the averaged weights, which are the result. `temperature` softens a classifier's answers,
    `label_weight` counts the labels' loss.
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
        """Refuse what cannot be trained: raises UsageError."""
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
        """The learning rate's share of its maximum, `progress` from 0 to 1 being that of the training."""
        if progress < self.warm_up:
            return max(progress, 1e-3) / self.warm_up
        left = (progress - self.warm_up) / max(1e-9, 1 - self.warm_up)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, left)))

    def tried(self) -> tuple[Ratios, ...]:
        """The keep ratios that the student is evaluated at."""
        if self.elastic is None:
            return (self.keep_ratios,)
        low, high = self.elastic
        shown = sorted({low, high, *(ratio for ratio in SHOWN if low < ratio < high)}, reverse=True)
        return tuple((ratio,) * len(self.keep_ratios) for ratio in shown)

    def in_words(self) -> str:
        """One line about it."""
        length = f"{self.epochs:g} epochs" if self.minutes is None else f"{self.minutes:g} minutes"
        one = f"keep ratio {ratios_in_words(self.keep_ratios)}"
        kept = one if self.elastic is None else "keep ratios {:g} to {:g}".format(*self.elastic)
        return f"{length}, {kept}, {self.batch} images a step, learning rate {self.rate:g}, {self.precision}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(self).items()
        }


ROUND = (0.0, None, 1.0, None, 0.0, None)  # of elastic steps: 0 the lowest keep ratio, 1 the highest, None a drawn one
SHOWN = (0.7, 0.5, 0.3)  # keep ratios of the table, between the ends

_RANGES = (
    ("epochs", 1e-3, 1e6),
    ("minutes", 1e-3, 1e6),
    ("batch", 1, 65536),
    ("micro_batch", 1, 65536),
    ("rate", 1e-9, 1.0),
    ("seed", 0, 2**32 - 1),
)


def kept_to_resume(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What of a `recipe` must be the same for a training to be resumed: not how much is computed at once."""
    return {name: value for name, value in recipe.items() if name != "micro_batch"}
