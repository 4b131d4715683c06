"""The random draws of a training: orders of images, keep ratios, augmentations.

Every draw depends only on the seed and the number of its step or epoch, not on earlier draws. So a resumed training,
or one in several processes, draws the same as an uninterrupted one.
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
    """Return the keep ratios of a step, one for each stage, for all of its images.

    An elastic recipe has both ends in every `ROUND` of steps. A step has one ratio only, because its gradients are
    clipped together: that of the lowest ratio can be a hundred times as large, and would leave nothing of the others.
    """
    if recipe.elastic is None:
        return recipe.keep_ratios
    low, high = recipe.elastic
    share = ROUND[step % len(ROUND)]
    if share is None:
        share = float(torch.rand((), generator=_seeded(recipe.seed, step, "ratios"), dtype=torch.float64))
    return (low * (1 - share) + high * share,) * len(recipe.keep_ratios)


def pictures(recipe: Recipe, step: int, batch: int, count: int) -> list[int]:
    """Return the indices of a step's `batch` images: each of all `count` is used once per epoch, in a new order."""
    places = range(step * batch, (step + 1) * batch)
    return [_order(recipe.seed, place // count, count)[place % count] for place in places]


def augmentation(recipe: Recipe, step: int, batch: int, numbers: int) -> Tensor | None:
    """Return `numbers` random numbers from 0 to 1 for each image of a step, (batch, numbers); None if not augmented."""
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
