"""The settings of a sweep."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from evodeploy.specs import FastPath
from evodeploy.sweeper.space import Candidate


@dataclass(frozen=True)
class SweepRequest:
    """The candidates to try on `checkpoint`, and how. Everything is written below `folder`.

    With ratios to search `by_stage`, the candidates are the largest ratio in each precision and engine, and all ratios
    that the search visits are tried in each. The search stops above the accuracy `least`. `data`, `labels` and
    `class_map` are the same as for an evaluation, of `limit` images. `images` calibrate INT8, or else those of `data`.
    `batch` images are timed at a time, each candidate for `seconds` in total. After `budget` seconds nothing new is
    begun. If it is `elastic`, one file for each stored precision holds every keep ratio; otherwise each ratio has
    separate files. `fast_path` is the treatment of tokens that are not kept, by default that of the checkpoint.
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
        """Return the name of the ONNX file that `candidate` runs, below `folder`."""
        return f"models/{'elastic' if self.elastic else f'keep-{candidate.dashed}'}.{candidate.stored}.onnx"
