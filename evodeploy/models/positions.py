"""Position embeddings for another grid than they were trained at."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def resized(positions: Tensor, grid: int, *, antialias: bool = False, offset: float = 0.0) -> Tensor:
    """Interpolate `positions` (1, n² + 1, C), the class token's first, bicubically to (1, grid² + 1, C).

    Each family has its own recipe, and their results differ by far more than rounding:

    - DeiT's fine-tuning, and with it Evo-DeiT, and Hugging Face: neither antialias nor offset;
    - timm: `antialias`, for which PyTorch uses another cubic kernel even if the grid grows;
    - facebookresearch's DINOv2: `offset` 0.1, added in its scale factor (grid + 0.1) / n against rounding.
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
