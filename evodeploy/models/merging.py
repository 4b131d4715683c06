"""Pure functions that merge each fast token into the slow token most like it (after Bolya et al., ToMe, ICLR 2023).

Shapes: B images, N patch tokens on a square grid, K of them slow, C channels. A slow token represents all tokens that
were merged into it: it is their mean, and attention counts it once for each of them. What it gains in a stage is added
to every member.

The slow tokens are those that no other token could represent: the anchors, which are every second token of every second
row, and the tokens least like any anchor (the choice of Token Merging for Stable Diffusion, Bolya and Hoffman, CVPRW
2023, with a fixed grid).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from evodeploy.models.selection import widened

_GOLDEN = 0.6180339887498949


class Merged(NamedTuple):
    """Slow tokens after merging.

    `tokens` (B, K, C) are the means of their members, and `size` (B, K) counts the members, including the slow token.
    The other two fields describe all tokens, slow ones first. `group` int64 (B, N) is the index in `tokens` that each
    belongs to. `margin` (B, N) is how much more it correlates with that slow token than with any other, and 2 for a
    slow token; correlations range from -1 to 1.
    """

    tokens: Tensor
    size: Tensor
    group: Tensor
    margin: Tensor


class MergedStage(NamedTuple):
    """The fields of `Evolved` for one stage: `selected` (B, K), and the others (B, N) by position in the image."""

    selected: Tensor
    scores: Tensor
    owners: Tensor
    owner_margins: Tensor


def likeness(tokens: Tensor, others: Tensor) -> Tensor:
    """Return the correlation, times C, of each of `tokens` (B, N, C) with each of `others` (B, K, C): (B, N, K).

    LayerNorm without weights normalises the tokens: its sums of squares stay in the range of half precision, and every
    engine has the operator.
    """
    width = (tokens.shape[-1],)
    return F.layer_norm(tokens, width) @ F.layer_norm(others, width).transpose(1, 2)


def anchor_scores(grid: int) -> Tensor:
    """Return scores (N,) for the tokens of a grid: 4 or more for an anchor, 0 for any other token.

    If fewer tokens are kept than there are anchors, the anchors of coarser grids come first. Within one grid the kept
    anchors are spread over the image, because the fractions of multiples of the golden ratio are spread evenly.
    """
    scores = torch.zeros(grid, grid)
    for index, (row, column) in enumerate((r, c) for r in range(0, grid, 2) for c in range(0, grid, 2)):
        level = next(n for n in range(1, 32) if row % 2 ** (n + 1) or column % 2 ** (n + 1) or n == 5)
        scores[row, column] = 3 + level + index * _GOLDEN % 1
    return scores.flatten()


def unlikeness(tokens: Tensor, grid: int) -> Tensor:
    """Return the scores (B, N) by which slow tokens are chosen from `tokens` (B, N, C), the highest first.

    A score is 2 minus the correlation with the most similar anchor, so from 1 to 3. Anchors score higher.
    """
    anchors = anchor_scores(grid).to(tokens.device)
    normed = F.layer_norm(tokens, (tokens.shape[-1],))
    alike = normed @ normed[:, anchors.nonzero()[:, 0]].transpose(1, 2)
    others = 2 - widened(alike).amax(dim=-1) / tokens.shape[-1]
    return torch.where(anchors > 0, anchors.to(others.dtype), others)


def merge(tokens: Tensor, keep: int) -> Merged:
    """Merge each of `tokens` (B, N, C) after the first `keep`, the slow ones, into the slow token most like it.

    If several are equally like it, the first is used. Sums are products with a matrix of zeros and one constant,
    because engines have no fast sum by index. The constant is a power of two, so that it rounds nothing, and so small
    that no sum leaves the range of FP16, as 255 tokens of 300 would. All sums include the slow tokens: if there are no
    fast ones, ONNX Runtime before 1.32 computes an empty sum from uninitialised memory.
    """
    slow, (_, count, width) = tokens[:, :keep], tokens.shape
    kept = torch.arange(slow.shape[1], device=tokens.device)
    alike = likeness(tokens, slow)
    nearest = alike.argmax(dim=-1)
    owner = torch.cat([kept + torch.zeros_like(nearest[:, :keep]), nearest[:, keep:]], dim=1)
    members = owner.unsqueeze(-1) == kept
    # Not a cast: OpenVINO computes what follows a cast from booleans in FP32, here half of a BF16 network.
    size = torch.where(members, 1.0, 0.0).to(tokens.dtype).sum(dim=1)
    most = 1 << (count - 1).bit_length()
    shares = torch.where(members, 1 / most, 0.0).to(tokens.dtype)
    means = (shares.transpose(1, 2) @ tokens) * (most / size).unsqueeze(-1)
    margin = (alike.amax(dim=-1) - alike.masked_fill(members, -width).amax(dim=-1)) / width
    return Merged(means, size, owner, torch.cat([torch.full_like(size, 2.0), margin[:, keep:]], dim=1))


def size_bias(size: Tensor) -> Tensor:
    """Return the bias (B, 1, 1, K + 1) on attention logits that makes each token count `size` (B, K) times.

    exp(l + log s) is s · exp(l). The class token, in row 0, counts once.
    """
    return F.pad(size.log(), (1, 0))[:, None, None]
