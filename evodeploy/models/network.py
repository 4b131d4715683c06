"""What every network offers, whatever its family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
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
    pos_embed: nn.Parameter
    patch_embed: nn.Module

    @property
    def dtype(self) -> torch.dtype:
        """The type of its weights."""
        return self.cls_token.dtype

    def embed(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) to the sequence (B, N + 1, C) of class and patch tokens, positions added."""
        patches = self.patch_embed(images).flatten(2).transpose(1, 2)
        # Row 0 is padding plus a constant, so that no operator needs to know the batch size.
        constant = self.pos_embed + F.pad(self.cls_token, (0, 0, 0, self.config.tokens))
        return F.pad(patches, (0, 0, 1, 0)) + constant

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
