"""The result of a distillation, as a record that prints as a table."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evodeploy.distillation.recipe import Ratios, Recipe
from evodeploy.text import ratios_in_words

SCHEMA = 1
LOG_EVERY = 10.0  # seconds between two lines of progress


@dataclass(frozen=True)
class Step:
    """One completed step. `done` is the completed share of the training, `agreement` the agreement with the teacher.

    Loss and agreement are smoothed over the last steps. Seconds count training alone.
    """

    step: int
    done: float
    loss: float
    agreement: float
    images_per_second: float
    seconds: float
    seconds_left: float

    def __str__(self) -> str:
        left = f"{int(self.seconds_left) // 60}:{int(self.seconds_left) % 60:02}"
        return (
            f"step {self.step}, {self.done:.0%}: loss {self.loss:.4f}, agreement {self.agreement:.1%}, "
            f"{self.images_per_second:.1f} img/s, {left} left"
        )


@dataclass(frozen=True)
class Estimate:
    """A share or a mean from 0 to 1, with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.1%} ({self.low:.1%}–{self.high:.1%})"


@dataclass(frozen=True)
class Quality:
    """Agreement with the teacher, and accuracy if there are labels."""

    agreement: Estimate
    accuracy: Estimate | None = None

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Quality:
        """Read the result of `dataclasses.asdict`."""
        accuracy = values["accuracy"]
        return cls(Estimate(**values["agreement"]), None if accuracy is None else Estimate(**accuracy))


@dataclass(frozen=True)
class Level:
    """The student at one keep ratio per stage, before and after training."""

    keep_ratios: Ratios
    before: Quality
    after: Quality


@dataclass(frozen=True)
class Distilled:
    """A distilled checkpoint: `output`, how it was trained, and what the training changed on `held_out` images.

    `rank` is that of this process among those that trained together; rank 0 wrote the output. `compared` describes what
    agreement counts. `teacher` is the teacher's own quality, which includes its accuracy if there are labels. The
    training set had `images` images; `computed` is how many were computed, with repetitions, in `steps` steps that took
    `seconds` in total. `evaluation_seconds` is the time for the table and the teacher's targets.
    """

    output: Path
    model: str
    teacher_sha256: str
    compared: str
    recipe: Recipe
    teacher: Quality
    levels: tuple[Level, ...]
    images: int
    held_out: int
    steps: int
    computed: int
    seconds: float
    evaluation_seconds: float
    rank: int = 0

    def __str__(self) -> str:
        labelled = self.teacher.accuracy is not None
        headings = ["keep ratio", "agreement before", "after", *(["accuracy before", "after"] if labelled else [])]
        rows = [headings]
        for level in self.levels:
            cells = [ratios_in_words(level.keep_ratios), str(level.before.agreement), str(level.after.agreement)]
            cells += [str(level.before.accuracy), str(level.after.accuracy)] if labelled else []
            rows.append(cells)
        if labelled:
            rows.append(["teacher", "", "", "", str(self.teacher.accuracy)])
        widths = [max(len(row[column]) for row in rows) for column in range(len(headings))]
        table = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        return "\n".join(
            [
                f"{self.held_out} images that were not trained on, with 95 % intervals; {self.compared}",
                "",
                *(line.rstrip() for line in table),
                "",
                f"{self.steps} steps on {self.computed} of {self.images} images in {self.seconds / 60:.1f} minutes, "
                f"and {self.evaluation_seconds / 60:.1f} minutes of evaluation",
                f"{self.output}  {self.model}",
            ]
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        values = dataclasses.asdict(self) | {"output": str(self.output), "recipe": self.recipe.to_dict()}
        values["levels"] = [
            dataclasses.asdict(level) | {"keep_ratios": list(level.keep_ratios)} for level in self.levels
        ]
        return {"schema": SCHEMA} | values
