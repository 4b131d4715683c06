"""What a prediction is, as small frozen records."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evodeploy.errors import EvodeployError


@dataclass(frozen=True)
class Label:
    """A class and how probable it is."""

    name: str
    index: int
    probability: float


@dataclass(frozen=True)
class Timing:
    """Seconds that an image took: to decode and prepare, and for the run of the `batch` images it was part of."""

    decode: float
    inference: float
    batch: int


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one image, best first.

    `kept` holds, for each selection, the positions of the tokens that stayed on the slow path, in the image's grid of
    patches, row by row; None where the artefact does not tell (export it with `--tokens`).
    """

    labels: tuple[Label, ...]
    timing: Timing
    kept: tuple[tuple[int, ...], ...] | None = None

    @property
    def label(self) -> Label:
        """The best one."""
        return self.labels[0]


@dataclass(frozen=True)
class Failure:
    """An image of a stream that has no prediction, and why: the others have theirs."""

    source: Any
    error: EvodeployError

    def __str__(self) -> str:
        message = str(self.error)
        named = not isinstance(self.source, (str, Path)) or str(self.source) in message
        return message if named else f"{self.source}: {message}"
