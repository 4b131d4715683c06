"""Runs of a network's blocks that share one set of slow tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evodeploy.errors import InputError


@dataclass(frozen=True)
class Segment:
    """Consecutive blocks that run on the same `keep` patch tokens, selected before the first block if `selects`."""

    blocks: tuple[int, ...]
    keep: int
    selects: bool


def check_keep(keep: Sequence[int], tokens: Sequence[int]) -> None:
    """Raise InputError unless `keep` has, for each selecting stage, a number from 1 to its number of `tokens`."""
    if len(keep) != len(tokens):
        raise InputError(f"keep has {len(keep)} numbers of tokens, expected {len(tokens)}, one for each stage")
    for stage, (kept, there) in enumerate(zip(keep, tokens, strict=True)):
        if not 1 <= kept <= there:
            raise InputError(f"stage {stage} cannot keep {kept} tokens, expected 1 to {there}")
