"""How a network's blocks fall into runs that share one set of slow tokens."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Segment:
    """Consecutive blocks that run on the same `keep` patch tokens."""

    blocks: tuple[int, ...]
    keep: int
