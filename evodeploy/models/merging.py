"""Merging fast tokens into the slow tokens most like them, as pure functions (after Bolya et al., ToMe, ICLR 2023).

Shapes: B images, N patch tokens on a square grid, K slow, C channels. A slow token that fast ones were
merged into represents all of them: it is their mean, and others attend to it as often as to all its members together.
What it gains in a stage, every member gains.

Slow are the tokens that no other could represent: every second token of every second row, the anchors, and those least
like any anchor (as Token Merging for Stable Diffusion chooses, Bolya and Hoffman, CVPRW 2023, with a fixed grid).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from evodeploy.models.selection import widened

_GOLDEN = 0.6180339887498949


class Merged(NamedTuple):
    """Slow tokens with what was merged into them.

    `tokens` (B, K, C) are the means of their members, `size` (B, K) counts these, the slow token among them. For all
    tokens, the slow ones first, `group` int64 (B, N) says which of `tokens` each belongs to, and `margin`, alike,
    by how much more it was like that one than any other: correlations, from -1 to 1, and 2 for a slow token.
    """

    tokens: Tensor
    size: Tensor
    group: Tensor
    margin: Tensor


class MergedStage(NamedTuple):
    """What `Evolved` holds of one stage: `selected` (B, K), and by position in the image the others (B, N)."""

    selected: Tensor
    scores: Tensor
    owners: Tensor
    owner_margins: Tensor


def likeness(tokens: Tensor, others: Tensor) -> Tensor:
    """How like each of `tokens` (B, N, C) is to each of `others` (B, K, C): their correlation, times C. (B, N, K).

    Tokens are normed as LayerNorm does, without weights: no sum of squares leaves the range of half precision, and
    every engine has the operator.
    """
    width = (tokens.shape[-1],)
    return F.layer_norm(tokens, width) @ F.layer_norm(others, width).transpose(1, 2)


def anchor_scores(grid: int) -> Tensor:
    """Scores (N,) of the anchors among N tokens, 4 and above, and 0 for all other tokens.

    Were fewer kept than there are anchors, it would be those of a coarser grid, and of one grid some from everywhere:
    the fractions of multiples of the golden ratio are spread evenly.
    """
    scores = torch.zeros(grid, grid)
    for index, (row, column) in enumerate((r, c) for r in range(0, grid, 2) for c in range(0, grid, 2)):
        level = next(n for n in range(1, 32) if row % 2 ** (n + 1) or column % 2 ** (n + 1) or n == 5)
        scores[row, column] = 3 + level + index * _GOLDEN % 1
    return scores.flatten()


def unlikeness(tokens: Tensor, grid: int) -> Tensor:
    """By what slow tokens are chosen, the larger the sooner: (B, N) of `tokens` (B, N, C).

    2 - the correlation with the anchor most like it, from 1 to 3, and for anchors more.
    """
    anchors = anchor_scores(grid).to(tokens.device)
    normed = F.layer_norm(tokens, (tokens.shape[-1],))
    alike = normed @ normed[:, anchors.nonzero()[:, 0]].transpose(1, 2)
    others = 2 - widened(alike).amax(dim=-1) / tokens.shape[-1]
    return torch.where(anchors > 0, anchors.to(others.dtype), others)


def merge(tokens: Tensor, keep: int) -> Merged:
    """Merge each of `tokens` (B, N, C) after the first `keep`, the slow ones, into the slow one most like it.

    Of equal ones it is the first. Sums are products with a matrix of zeros and one constant: engines have no fast sum
    by index. The constant is a power of two, so that nothing is rounded, and so small that no sum leaves the range of
    FP16, as 255 tokens of 300 would. Slow tokens take part in all sums: where none is fast, ONNX Runtime before 1.32
    computes a sum of nothing from memory that nothing has written.
    """
    slow, (_, count, width) = tokens[:, :keep], tokens.shape
    kept = torch.arange(slow.shape[1], device=tokens.device)
    alike = likeness(tokens, slow)
    nearest = alike.argmax(dim=-1)
    owner = torch.cat([kept + torch.zeros_like(nearest[:, :keep]), nearest[:, keep:]], dim=1)
    members = owner.unsqueeze(-1) == kept
    # Not a cast: OpenVINO computes what follows one from booleans in FP32, here half of a BF16 network.
    size = torch.where(members, 1.0, 0.0).to(tokens.dtype).sum(dim=1)
    most = 1 << (count - 1).bit_length()
    shares = torch.where(members, 1 / most, 0.0).to(tokens.dtype)
    means = (shares.transpose(1, 2) @ tokens) * (most / size).unsqueeze(-1)
    margin = (alike.amax(dim=-1) - alike.masked_fill(members, -width).amax(dim=-1)) / width
    return Merged(means, size, owner, torch.cat([torch.full_like(size, 2.0), margin[:, keep:]], dim=1))


def size_bias(size: Tensor) -> Tensor:
    """What makes attention count a token `size` (B, K) times, to be added to its logits: (B, 1, 1, K + 1).

    exp(l + log s) is s · exp(l). The class token, in row 0, counts once.
    """
    return F.pad(size.log(), (1, 0))[:, None, None]
