"""What computes, as the endpoints see it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Protocol

from evodeploy.engines.base import Array
from evodeploy.errors import InputError
from evodeploy.serving.budget import Budget
from evodeploy.specs import ModelInfo, TensorSpec

KEEP_HEADER = "evodeploy-keep-ratio"


@dataclass(frozen=True)
class Asked:
    """What a request asks of an elastic artefact: one keep ratio, or a least one; and when it came (time.monotonic)."""

    keep_ratio: float | None = None
    least_keep_ratio: float | None = None
    arrived: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        """Refuse both at once, which may contradict each other: raises InputError."""
        if self.keep_ratio is not None and self.least_keep_ratio is not None:
            raise InputError("keep_ratio and least_keep_ratio exclude each other: ask for one of them")


@dataclass(frozen=True)
class Answer:
    """Outputs by name, and the keep ratio of each stage that they were computed at."""

    outputs: dict[str, Array]
    keep_ratios: tuple[float, ...]

    @property
    def shown(self) -> str:
        """The ratios as a header says them: one where all are alike."""
        ratios = self.keep_ratios[:1] if len(set(self.keep_ratios)) == 1 else self.keep_ratios
        return ",".join(f"{ratio:g}" for ratio in ratios)


class Backend(Protocol):
    """An engine's facts, and batches of whole requests. With a `budget` it chooses the keep ratio of each."""

    info: ModelInfo
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    engine: str
    budget: Budget | None

    def check(self, images: int, asked: Asked) -> None:
        """Raise InputError where the artefact cannot do what is asked, BusyError where it cannot be done in time."""

    async def run(self, images: Array, asked: Asked) -> Answer:
        """The answer for any number of images, prepared as `inputs[0]` says; raises as `check` does."""
