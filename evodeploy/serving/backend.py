"""The interface between the endpoints and the worker that computes."""

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
    """What a request asks of an elastic artefact: a keep ratio or a least one, and its arrival (time.monotonic)."""

    keep_ratio: float | None = None
    least_keep_ratio: float | None = None
    arrived: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        """Raise InputError if both ratios are given, because they may contradict each other."""
        if self.keep_ratio is not None and self.least_keep_ratio is not None:
            raise InputError("keep_ratio and least_keep_ratio exclude each other: ask for one of them")


@dataclass(frozen=True)
class Answer:
    """Outputs by name, and the keep ratio of each stage with which they were computed."""

    outputs: dict[str, Array]
    keep_ratios: tuple[float, ...]

    @property
    def shown(self) -> str:
        """The ratios as a header value: a single one if all are equal."""
        ratios = self.keep_ratios[:1] if len(set(self.keep_ratios)) == 1 else self.keep_ratios
        return ",".join(f"{ratio:g}" for ratio in ratios)


class Backend(Protocol):
    """An engine's facts, and runs of whole requests. With a `budget` it chooses the keep ratio of each batch."""

    info: ModelInfo
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    engine: str
    budget: Budget | None

    def check(self, images: int, asked: Asked) -> None:
        """Raise InputError if the artefact cannot do what is asked, BusyError if it cannot do it in time."""

    async def run(self, images: Array, asked: Asked) -> Answer:
        """Compute the answer for any number of images in the form of `inputs[0]`. Raises the same errors as `check`."""
