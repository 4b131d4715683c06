"""The results of a sweep."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evodeploy.sweeper.front import Point
from evodeploy.text import line, plain, rich_table

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.table import Table


@dataclass(frozen=True)
class Sweep:
    """All measured points, the first being the reference of their speeds, and why other candidates were not measured.

    `front` holds those that no other beats. `chosen` is the one that meets the targets. It is None without a target, or
    if no point meets it; then `unmet` gives the nearest miss. `files` were written. Points are for `batch` images on
    `threads` CPU threads.
    """

    points: tuple[Point, ...]
    front: tuple[Point, ...]
    left_out: Mapping[str, str]
    chosen: Point | None
    batch: int
    threads: int
    unmet: str | None = None
    files: tuple[Path, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the sweep as plain JSON values, the content of sweep.json."""
        chosen = {} if self.chosen is None else {"chosen": str(self.chosen.candidate)}
        verdict = chosen if self.unmet is None else {"unmet": self.unmet}
        return {
            "schema": 1,
            "batch": self.batch,
            "threads": self.threads,
            "points": [self._as_dict(point) for point in self.points],
            "left_out": dict(self.left_out),
        } | verdict

    def __str__(self) -> str:
        return plain(self)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        reference = self.points[0].candidate
        speeds = f"speed relative to {reference}, run in turn"
        yield line(f"batch {self.batch}, {self.threads} threads; {speeds}; ● worth having\n")
        yield self._table()
        yield line("\n" + ", ".join(map(str, self.files)))
        if self.chosen is not None:
            yield line(f"chosen: {self.chosen.candidate}")
            yield line(f'next: evodeploy.load("{self.files[-1]}")')
        if self.unmet is not None:
            yield line(f"nothing is chosen: {self.unmet}")

    def _as_dict(self, point: Point) -> dict[str, Any]:
        values = dataclasses.asdict(point)
        values["candidate"] |= {"name": str(point.candidate)}
        return values | {"on_front": point in self.front}

    def _table(self) -> Table:
        left = ("", "keep", "engine", "precision")
        table = rich_table((*left, "top-1", "speed", "95 %", "img/s", "ms"), left)
        for point in sorted(self.points, key=lambda each: -each.speed.value):
            each, speed = point.candidate, point.speed
            table.add_row(
                "●" if point in self.front else "",
                each.kept,
                each.engine,
                each.precision,
                "–" if point.accuracy is None else str(point.accuracy),
                f"{speed.value:.2f} ×",
                f"{speed.low:.2f}–{speed.high:.2f}",
                f"{point.rate:.1f}",
                f"{1000 * point.seconds:.1f}",
            )
        return table
