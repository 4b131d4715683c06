"""What every network offers, whatever its family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from evodeploy.models.zoo import ModelConfig


class Evolved(NamedTuple):
    """What the blocks made of a batch of B images.

    `pooled` (B, C) is the mean of all patch tokens and `class_token` (B, C) the class token after the last block.
    For each selection made, `selected` holds the positions kept (B, K), in the image's row-major grid of patches, and
    `scores` (B, N) what they were chosen by: global class attention, or where fast tokens are merged their
    `merging.unlikeness`. There `owners` holds the position (B, N) of the kept token that each token of the image went
    to, its own for a kept one, and `owner_margins` (B, N) by how much that one was more like it than any other kept
    token: see `merging.Merged`.
    """

    pooled: Tensor
    class_token: Tensor
    selected: tuple[Tensor, ...]
    scores: tuple[Tensor, ...]
    owners: tuple[Tensor, ...] = ()
    owner_margins: tuple[Tensor, ...] = ()


class Network(nn.Module):
    """A classifier of images whose tokens evolve at two speeds."""

    config: ModelConfig
    cls_token: nn.Parameter

    @property
    def dtype(self) -> torch.dtype:
        """The type of its weights."""
        return self.cls_token.dtype

    def evolve(self, images: Tensor, keep: Sequence[int] | None = None) -> Evolved:
        """Run all blocks on images (B, 3, H, W), already normalised.

        `keep` is how many tokens each selecting stage keeps, from 1 to all N; None as the network is configured. With
        all N it computes what the dense network does, and still says what it selected. Raises InputError.
        """
        raise NotImplementedError

    def classify(self, evolved: Evolved) -> Tensor:
        """Class logits (B, classes), or features (B, C) of a network without a classifier."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Class logits (B, classes) for images (B, 3, H, W), already normalised."""
        return self.classify(self.evolve(images))
