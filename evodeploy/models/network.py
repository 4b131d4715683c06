"""The common base of the networks of all families."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evodeploy.models.zoo import ModelConfig


class Evolved(NamedTuple):
    """The result of the blocks for a batch of B images.

    `pooled` (B, C) is the mean of all patch tokens and `class_token` (B, C) the class token after the last block.
    For each selection, `selected` holds the positions kept (B, K), in the image's row-major grid of patches, and
    `scores` (B, N) the scores they were chosen by: global class attention, or `merging.unlikeness` if fast tokens are
    merged. In that case `owners` holds the position (B, N) of the kept token that each token was merged into, for a
    kept token its own. `owner_margins` (B, N) is how much more like it the token was than like any other kept token:
    see `merging.Merged`.
    """

    pooled: Tensor
    class_token: Tensor
    selected: tuple[Tensor, ...]
    scores: tuple[Tensor, ...]
    owners: tuple[Tensor, ...] = ()
    owner_margins: tuple[Tensor, ...] = ()


class Network(nn.Module):
    """An image classifier whose tokens evolve at two speeds."""

    config: ModelConfig
    cls_token: nn.Parameter
    pos_embed: nn.Parameter
    patch_embed: nn.Module

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights."""
        return self.cls_token.dtype

    def embed(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to the sequence (B, N + 1, C) of class and patch tokens, with positions added."""
        patches = self.patch_embed(images).flatten(2).transpose(1, 2)
        # Row 0 is padding plus a constant, so that no operator needs to know the batch size.
        constant = self.pos_embed + F.pad(self.cls_token, (0, 0, 0, self.config.tokens))
        return F.pad(patches, (0, 0, 1, 0)) + constant

    def evolve(self, images: Tensor, keep: Sequence[int] | None = None) -> Evolved:
        """Run all blocks on images (B, 3, H, W), already normalised.

        `keep` is how many tokens each selecting stage keeps, from 1 to all N; by default the network's configuration
        decides. With all N the result is that of the dense network, and the selections are still returned. Raises
        InputError for other numbers.
        """
        raise NotImplementedError

    def classify(self, evolved: Evolved) -> Tensor:
        """Compute class logits (B, classes), or features (B, C) if the network has no classifier."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W), already normalised, to class logits (B, classes)."""
        return self.classify(self.evolve(images))
