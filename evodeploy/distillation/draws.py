"""What a training draws: orders, keep ratios, augmentations.

Every draw is a function of the seed and of the number of its step or epoch, and of nothing that came before: a resumed
training, and one in several processes, draws what an uninterrupted one does.
"""

from __future__ import annotations

import functools
from typing import Literal

import torch
from torch import Tensor

from evodeploy.distillation.recipe import ROUND, Ratios, Recipe

Stream = Literal["ratios", "order", "augmentation"]

_STREAMS: tuple[Stream, ...] = ("ratios", "order", "augmentation")


def keep_ratios(recipe: Recipe, step: int) -> Ratios:
    """The keep ratios of a step, one for each stage, which all of its pictures are computed at.

    An elastic recipe has both ends in every `ROUND` of steps. Several ratios in one step would be clipped together, and
    the lowest, whose gradient can be a hundred times as large, would leave nothing of the others.
    """
    if recipe.elastic is None:
        return recipe.keep_ratios
    low, high = recipe.elastic
    share = ROUND[step % len(ROUND)]
    if share is None:
        share = float(torch.rand((), generator=_seeded(recipe.seed, step, "ratios"), dtype=torch.float64))
    return (low * (1 - share) + high * share,) * len(recipe.keep_ratios)


def pictures(recipe: Recipe, step: int, batch: int, count: int) -> list[int]:
    """The `batch` pictures of a step: each of all `count` comes once in an epoch, in an order of its own."""
    places = range(step * batch, (step + 1) * batch)
    return [_order(recipe.seed, place // count, count)[place % count] for place in places]


def augmentation(recipe: Recipe, step: int, batch: int, numbers: int) -> Tensor | None:
    """`numbers` random numbers from 0 to 1 for each picture of a step, (batch, numbers); None without augmentation."""
    if not recipe.augment:
        return None
    return torch.rand(batch, numbers, generator=_seeded(recipe.seed, step, "augmentation"))


@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> list[int]:
    order: list[int] = torch.randperm(count, generator=_seeded(seed, epoch, "order")).tolist()
    return order


def _seeded(seed: int, number: int, stream: Stream) -> torch.Generator:
    mixed = (seed * 1_000_003 + number) * len(_STREAMS) + _STREAMS.index(stream)
    return torch.Generator().manual_seed(mixed % 2**63)
