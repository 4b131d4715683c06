"""Merging fast tokens into the slow tokens most like them, as pure functions (after Bolya et al., ToMe, ICLR 2023).

Shapes: B images, K slow tokens, F fast ones, C channels. A slow token that fast ones were merged into stands for all of
them: it is their mean, and others attend to it as often as to all its members together. What it gains in a stage, every
member gains.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Merged(NamedTuple):
    """Slow tokens with what was merged into them.

    `tokens` (B, K, C) are the means of their members, `size` (B, K) counts these, the slow token among them. `owner`
    int64 (B, F) says which slow token each fast one went to, `margin` (B, F) by how much that was more like it than any
    other: correlations, from -1 to 1.
    """

    tokens: Tensor
    size: Tensor
    owner: Tensor
    margin: Tensor


def likeness(fast: Tensor, slow: Tensor) -> Tensor:
    """How like each of `fast` (B, F, C) is to each of `slow` (B, K, C): their correlation, times C. (B, F, K).

    Tokens are normed as LayerNorm does, without weights: no sum of squares leaves the range of half precision, and
    every engine has the operator.
    """
    width = (fast.shape[-1],)
    return F.layer_norm(fast, width) @ F.layer_norm(slow, width).transpose(1, 2)


def merge(slow: Tensor, fast: Tensor) -> Merged:
    """Merge each of `fast` (B, F, C) into the one of `slow` (B, K, C) most like it; of equal ones, the first.

    Sums are products with a matrix of ones and zeros: engines have no fast sum by index.
    """
    alike = likeness(fast, slow)
    owner = alike.argmax(dim=-1)
    members = owner.unsqueeze(-1) == torch.arange(slow.shape[1], device=owner.device)
    # Not a cast: OpenVINO computes what follows one from booleans in FP32, here half of a BF16 network.
    counted = torch.where(members, 1.0, 0.0).to(slow.dtype)
    size = 1 + counted.sum(dim=1)
    tokens = (slow + counted.transpose(1, 2) @ fast) / size.unsqueeze(-1)
    width = slow.shape[-1]
    second = alike.masked_fill(members, -width).amax(dim=-1)
    return Merged(tokens, size, owner, (alike.amax(dim=-1) - second) / width)


def size_bias(size: Tensor) -> Tensor:
    """What makes attention count a token `size` (B, K) times, to be added to its logits: (B, 1, 1, K + 1).

    exp(l + log s) is s · exp(l). The class token, in row 0, counts once.
    """
    return F.pad(size.log(), (1, 0))[:, None, None]


def of_owners(values: Tensor, owner: Tensor) -> Tensor:
    """For each fast token the row of `values` (B, K, C) that belongs to its `owner` (B, F): (B, F, C)."""
    return values.gather(1, owner.unsqueeze(-1).expand(-1, -1, values.shape[-1]))


def told_owners(merged: Merged, origin: Tensor) -> tuple[Tensor, Tensor]:
    """Owners and margins of all tokens by their positions in the image: int64 and float32 (B, N).

    `origin` (B, N) holds the positions of the kept tokens, then those of the fast ones. Kept tokens own themselves, by
    the whole range of a correlation.
    """
    kept = merged.size.shape[1]
    owners = torch.cat([origin[:, :kept], origin.gather(1, merged.owner)], dim=1)
    margins = torch.cat([torch.full_like(merged.size, 2.0), merged.margin], dim=1)
    return owners.scatter(1, origin, owners), margins.scatter(1, origin, margins)
