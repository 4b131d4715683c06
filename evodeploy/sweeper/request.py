"""What a sweep is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from evodeploy.specs import FastPath
from evodeploy.sweeper.space import Candidate


@dataclass(frozen=True)
class SweepRequest:
    """What to try on `checkpoint`; everything is written below `folder`.

    With ratios to search `by_stage` the candidates are the largest ratio in each precision and engine, and all ratios
    that the search meets are tried in each; it stops above the accuracy `least`.
    `data`, `labels` and `class_map` are as for an evaluation, of `limit` images; `images` calibrate INT8, those of
    `data` without.
    `batch` images are timed at a time, each candidate for `seconds` in all. After `budget` seconds nothing new is
    begun. Where it is `elastic` a file holds every keep ratio, and there is one for each stored precision; else each
    ratio has files of its own. What tokens do that are not kept, `fast_path` says, or the checkpoint.
    """

    checkpoint: Path
    folder: Path
    candidates: tuple[Candidate, ...]
    data: Path | None = None
    labels: Path | None = None
    class_map: Path | None = None
    limit: int | None = None
    images: Path | None = None
    batch: int = 8
    threads: int = 1
    seconds: float = 3.0
    budget: float | None = None
    by_stage: tuple[float, ...] = ()
    least: float | None = None
    elastic: bool = False
    fast_path: FastPath | None = None

    def file_of(self, candidate: Candidate) -> str:
        """The name of the ONNX file that `candidate` runs, below `folder`."""
        return f"models/{'elastic' if self.elastic else f'keep-{candidate.dashed}'}.{candidate.stored}.onnx"
