"""Position embeddings at another grid than they were trained at."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def resized(positions: Tensor, grid: int, *, antialias: bool = False, offset: float = 0.0) -> Tensor:
    """`positions` (1, n² + 1, C), the class token's first, interpolated bicubically to (1, grid² + 1, C).

    The recipes differ by family, by far more than rounding:

    - DeiT's fine-tuning, and with it Evo-DeiT, and Hugging Face: neither antialias nor offset;
    - timm: `antialias`, which PyTorch computes with another cubic even where the grid grows;
    - facebookresearch's DINOv2: `offset` 0.1, which its scale factor (grid + 0.1) / n carries against rounding.
    """
    old = math.isqrt(positions.shape[1] - 1)
    if old == grid:
        return positions
    square = positions[:, 1:].transpose(1, 2).reshape(1, -1, old, old)
    if offset:
        scale = (grid + offset) / old
        square = F.interpolate(square, scale_factor=(scale, scale), mode="bicubic", antialias=antialias)
    else:
        square = F.interpolate(square, size=(grid, grid), mode="bicubic", antialias=antialias)
    return torch.cat([positions[:, :1], square.flatten(2).transpose(1, 2)], dim=1)
