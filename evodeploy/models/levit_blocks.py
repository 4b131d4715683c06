"""The modules of LeViT: linear and convolutional layers with batch norm, attention, blocks, subsampling.

Shapes are those of selection.py; N is the number of patch tokens in the current stage's grid, h·d the width of all
heads together.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evodeploy.models.selection import blend, class_attention, class_logits


class LinearBN(nn.Module):
    """A linear layer without bias, then batch norm over its channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=False)
        self.bn = nn.BatchNorm1d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, rows, C) to (B, rows, C')."""
        y = self.linear(x)
        normed: Tensor = self.bn(y.reshape(-1, y.shape[-1]))
        return normed.reshape(-1, *y.shape[1:])


class BNLinear(nn.Module):
    """Batch norm over the channels, then a linear layer."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(inputs)
        self.linear = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C) to (B, C')."""
        y: Tensor = self.linear(self.bn(x))
        return y


class ConvBN(nn.Module):
    """A 3×3 convolution of stride 2 without bias, then batch norm over its channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H/2, W/2)."""
        y: Tensor = self.bn(self.conv(x))
        return y


class TwinHead(nn.Module):
    """The mean of two heads: one is trained on the labels, the other on the outputs of a teacher network."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.label = BNLinear(width, classes)
        self.distilled = BNLinear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C) to logits (B, classes)."""
        y: Tensor = (self.label(x) + self.distilled(x)) / 2
        return y


def _per_head(x: Tensor, heads: int) -> Tensor:
    """Reshape (B, rows, h·d) to (B, h, rows, d)."""
    _, rows, width = x.shape
    return x.reshape(-1, rows, heads, width // heads).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head self-attention that can also return the class token's attention, computed separately as one row.

    The logits are scaled by d^-1/2 of the key width d.
    """

    def __init__(self, width: int, heads: int, key_width: int) -> None:
        super().__init__()
        self.heads, self.key_width, self.value_width = heads, key_width, 2 * key_width
        self.scale = key_width**-0.5
        self.qkv: nn.Module = LinearBN(width, heads * (2 * key_width + self.value_width))
        self.proj = LinearBN(heads * self.value_width, width)
        self.learn_tradeoff = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, scored: bool) -> tuple[Tensor, Tensor | None]:
        """Map (B, rows, C) to the same shape, and to the class token's logits (B, h, rows) if `scored`."""
        widths = (self.key_width, self.key_width, self.value_width)
        query, key, value = _per_head(self.qkv(x), self.heads).split_with_sizes(widths, dim=-1)
        mixed = F.scaled_dot_product_attention(query, key, value, scale=self.scale)
        mixed = mixed.transpose(1, 2).reshape(-1, x.shape[1], self.heads * self.value_width)
        logits = class_logits(query[:, :, :1], key, self.scale) if scored else None
        return self.proj(F.hardswish(mixed)), logits

    def tradeoff(self) -> Tensor:
        """Return t, in (0, 1): the share of the global class attention that this module's own replaces."""
        return self.learn_tradeoff.sigmoid()


class SubsampleAttention(nn.Module):
    """Attention from the tokens in every second row and column of the grid to all tokens, at the next stage's width.

    `sampled` holds the positions of these tokens, `rows` the sequence's rows of the class token and of these tokens.
    """

    sampled: Tensor
    rows: Tensor

    def __init__(self, grid: int, width: int, key_width: int, outputs: int) -> None:
        super().__init__()
        self.heads, self.key_width, self.value_width = width // key_width, key_width, 4 * key_width
        self.scale = key_width**-0.5
        self.pos_embed = nn.Parameter(torch.zeros(1, grid**2 + 1, width))
        self.kv: nn.Module = LinearBN(width, self.heads * (key_width + self.value_width))
        self.query: nn.Module = LinearBN(width, self.heads * key_width)
        self.proj = LinearBN(self.heads * self.value_width, outputs)
        self.learn_tradeoff = nn.Parameter(torch.zeros(1))
        sampled = torch.arange(grid**2).reshape(grid, grid)[::2, ::2].flatten()
        self.register_buffer("sampled", sampled, persistent=False)
        self.register_buffer("rows", F.pad(sampled + 1, (1, 0)), persistent=False)

    def forward(self, x: Tensor, scores: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Map (B, N + 1, C) to (B, N' + 1, C'), and the scores (B, N) to (B, N') with the same sum."""
        x = x + self.pos_embed
        widths = (self.key_width, self.value_width)
        key, value = _per_head(self.kv(x), self.heads).split_with_sizes(widths, dim=-1)
        query = _per_head(self.query(x.index_select(1, self.rows)), self.heads)
        mixed = F.scaled_dot_product_attention(query, key, value, scale=self.scale)
        mixed = mixed.transpose(1, 2).reshape(-1, len(self.rows), self.heads * self.value_width)
        if scores is not None:
            logits = class_logits(query[:, :, :1], key, self.scale)
            attention = class_attention(logits).index_select(1, self.sampled) / self.heads
            total = scores.sum(dim=1, keepdim=True)
            scores = blend(scores.index_select(1, self.sampled), attention, self.learn_tradeoff.sigmoid())
            scores = scores * (total / scores.sum(dim=1, keepdim=True))
        return self.proj(F.hardswish(mixed)), scores


class Mlp(nn.Module):
    """Two linear layers with Hardswish between them, twice as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = LinearBN(width, 2 * width)
        self.fc2 = LinearBN(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, rows, C) to the same shape."""
        y: Tensor = self.fc2(F.hardswish(self.fc1(x)))
        return y


class Block(nn.Module):
    """Attention and MLP, each with a residual connection."""

    def __init__(self, width: int, heads: int, key_width: int) -> None:
        super().__init__()
        self.attn = Attention(width, heads, key_width)
        self.mlp = Mlp(width)

    def forward(self, x: Tensor, scored: bool) -> tuple[Tensor, Tensor | None]:
        """Map (B, rows, C) to the same shape, and to the class token's logits (B, h, rows) if `scored`."""
        residual, attention = self.attn(x, scored)
        x = x + residual
        return x + self.mlp(x), attention


class Subsample(nn.Module):
    """The transition from one stage's grid to the next: a quarter of the tokens, with another width."""

    def __init__(self, grid: int, width: int, key_width: int, outputs: int) -> None:
        super().__init__()
        self.attn = SubsampleAttention(grid, width, key_width, outputs)
        self.mlp = Mlp(outputs)

    def forward(self, x: Tensor, scores: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Map (B, N + 1, C) to (B, N' + 1, C'), and the scores (B, N) to (B, N') with the same sum."""
        x, scores = self.attn(x, scores)
        return x + self.mlp(x), scores
