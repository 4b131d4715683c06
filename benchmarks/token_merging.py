"""Token Merging (ToMe, Bolya et al., ICLR 2023) on the weights of a plain ViT of this project.

Tokens are matched and merged by the published code, run from a checkout of facebookresearch/ToMe. None of it is in this
repository. Only its file `tome/merge.py` is loaded, because the package imports timm.
"""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evodeploy.exporter.to_onnx import DEFAULT_OPSET
from evodeploy.models.evo_deit import Attention, EvoDeiT
from evodeploy.models.zoo import EvoDeiTConfig


def published(checkout: Path) -> ModuleType:
    """Load the module `tome/merge.py` from a checkout of facebookresearch/ToMe."""
    path = checkout / "tome" / "merge.py"
    if not path.is_file():
        sys.exit(f"{path} is not there: git clone https://github.com/facebookresearch/ToMe {checkout}")
    spec = importlib.util.spec_from_file_location("published_tome_merge", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows_per_block(config: EvoDeiTConfig, r: int) -> list[tuple[int, int]]:
    """Return the number of tokens in each block's attention and in its MLP; between the two, r are merged.

    The class token is included. As in the published code, at most half of the patch tokens are merged.
    """
    rows, pairs = config.tokens + 1, []
    for _ in range(config.depth):
        fewer = rows - min(r, (rows - 1) // 2)
        pairs.append((rows, fewer))
        rows = fewer
    return pairs


def gflops(config: EvoDeiTConfig, r: int) -> float:
    """Return the multiply-adds of one image, in 1e9, counted as in `evodeploy.models.cost`, without the matching.

    A block with T tokens in its attention and T' in its MLP, C wide with H hidden: 4 T C² + 2 T² C + 2 T' C H.
    """
    width, hidden = config.width, int(config.width * config.mlp_ratio)
    total = config.tokens * 3 * config.patch_size**2 * width + width * config.num_classes
    for rows, fewer in rows_per_block(config, r):
        total += 4 * rows * width**2 + 2 * rows**2 * width + 2 * fewer * width * hidden
    return total / 1e9


def equal_work(config: EvoDeiTConfig, target: float) -> int:
    """Return the r whose multiply-adds are nearest to `target`, in 1e9."""
    most = math.ceil(config.tokens / config.depth)  # merges nearly all tokens
    return min(range(most + 1), key=lambda r: abs(gflops(config, r) - target))


class TokenMerging(nn.Module):
    """The dense `network` with r tokens merged in each block. `merging` is the result of `published`.

    As published, attention counts a token once per member ("proportional attention"), tokens are compared by their
    keys, averaged over heads, and merged between attention and MLP. Attention itself is PyTorch's fused one, as in this
    project's networks, while the published code computes it step by step. So only the merging differs from these
    networks.
    """

    def __init__(self, network: EvoDeiT, r: int, merging: ModuleType) -> None:
        super().__init__()
        if network.config.pooling != "class":
            raise ValueError("ToMe is measured on networks that read the class token, as DINOv2")
        self.network, self.r, self.merging = network, r, merging

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """Map images (B, 3, H, W) to class logits or features, the same as the network's, in a tuple of one."""
        net, size = self.network, None
        x = net.embed(images)
        for block in net.blocks:
            gained, keys = _attended(block.attn, block.norm1(x), size)
            x = x + gained
            if self.r:
                merge, _ = self.merging.bipartite_soft_matching(keys, self.r, class_token=True)
                x, size = self.merging.merge_wavg(merge, x, size)
            x = x + block.mlp(block.norm2(x))
        return (net.head(net.norm(x[:, 0])),)


def _attended(attention: Attention, x: Tensor, size: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the attention's update of x (B, T, C) and keys (B, T, C / heads); tokens have `size` (B, T, 1) members."""
    batch, rows, width = x.shape
    parts = attention.qkv(x).reshape(batch, rows, 3, attention.heads, -1).permute(2, 0, 3, 1, 4)
    query, key, value = parts.unbind(0)
    bias = None if size is None else size.log().transpose(1, 2).unsqueeze(1)
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=attention.scale)
    gained: Tensor = attention.proj(mixed.transpose(1, 2).reshape(batch, rows, width))
    return gained, key.mean(dim=1)


def onnx_from(module: nn.Module, side: int, output: str) -> onnx.ModelProto:
    """Export `module`, which takes images of `side` pixels, with torch.onnx unchanged. The batch is dynamic."""
    program = torch.onnx.export(
        module.eval(), (torch.zeros(2, 3, side, side),), dynamo=True, opset_version=DEFAULT_OPSET,
        input_names=["images"], output_names=[output], verbose=False,
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=1 << 16)},),
    )  # fmt: skip
    assert program is not None
    return program.model_proto
