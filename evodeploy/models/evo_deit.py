"""Evo-DeiT: a DeiT whose later blocks run on the tokens that its class token attends to (Evo-ViT, section 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evodeploy.models.merging import MergedStage, merge, size_bias, unlikeness
from evodeploy.models.network import Evolved, Network
from evodeploy.models.segment import Segment
from evodeploy.models.selection import class_logits, global_attention, split_tokens, take_rows, take_tokens, top_k
from evodeploy.models.zoo import EvoDeiTConfig


class Attention(nn.Module):
    """Multi-head self-attention that can also return what the class token attends to.

    That row is computed separately. Reading it from the full attention matrix would prevent runtimes from using fused
    attention, which never stores the matrix.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (width // heads) ** -0.5
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, scored: bool, bias: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Map (B, N + 1, C) to the same shape, and to the class token's logits (B, h, N + 1) if `scored`.

        `bias` (B, 1, 1, N + 1) is added to the attention logits, but not to those returned: only merged tokens have a
        bias, and these are not scored.
        """
        _, rows, width = x.shape
        qkv = self.qkv(x).reshape(-1, rows, 3 * self.heads, width // self.heads).transpose(1, 2)
        query, key, value = qkv.split(self.heads, dim=1)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=self.scale)
        logits = class_logits(query[:, :, :1], key, self.scale) if scored else None
        return self.proj(mixed.transpose(1, 2).reshape(-1, rows, width)), logits


class Mlp(nn.Module):
    """Two linear layers with the exact (erf) GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, C) to (…, C)."""
        y: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return y


class Block(nn.Module):
    """One pre-norm transformer block."""

    def __init__(self, config: EvoDeiTConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.attn = Attention(config.width, config.heads)
        self.norm2 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = Mlp(config.width, int(config.width * config.mlp_ratio))

    def forward(self, x: Tensor, scored: bool, bias: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """See Attention."""
        residual, attention = self.attn(self.norm1(x), scored, bias)
        x = x + residual
        return x + self.mlp(self.norm2(x)), attention


class EvoDeiT(Network):
    """The network; `class_head` adds the head on the class token that only training uses, see sample/train.py."""

    def __init__(self, config: EvoDeiTConfig, class_head: bool = False) -> None:
        super().__init__()
        self.config: EvoDeiTConfig = config
        width = config.width
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, config.tokens + 1, width))
        self.patch_embed = nn.Conv2d(3, width, config.patch_size, stride=config.patch_size)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.head = nn.Linear(width, config.num_classes) if config.num_classes else nn.Identity()
        if class_head:
            self.norm_cls = nn.LayerNorm(width, eps=config.norm_eps)
            self.head_cls = nn.Linear(width, config.num_classes)

    def evolve(self, images: Tensor, keep: Sequence[int] | None = None) -> Evolved:
        """See Network.

        A selection sorts the patch tokens by their scores, and they stay in that order: slow tokens first, then the
        fast ones, so that joining them again is one concatenation. Positions are already added, so nothing depends on
        the order except which of several equal scores comes first.
        """
        x = self.embed(images)
        segments = self.config.segments_of(keep)
        scored = self.config.scored_for(segments)
        scores: Tensor | None = None
        origin: Tensor | None = None  # positions (B, N) in the image of the patch tokens of x, once they are sorted
        selected: list[Tensor] = []
        chosen_by: list[Tensor] = []
        merged: list[MergedStage] = []
        for run in segments:
            if not run.selects:
                x, scores = self._run(run, x, scores, scored)
                continue
            if self.config.fast_path == "merge":
                x, done = self._run_merged(run, x)
                merged.append(done)
                continue
            assert scores is not None  # scored covers the blocks before every selection
            ranked, order = top_k(scores, self.config.tokens)
            chosen_by.append(scores if origin is None else scores.scatter(1, origin, scores))
            origin = order if origin is None else origin.gather(1, order)
            selected.append(origin[:, : run.keep])
            kept, _ = split_tokens(x, order[:, : run.keep])
            slow, kept_scores = self._run(run, kept, ranked[:, : run.keep], scored)
            if run is segments[-1]:
                # The fast tokens do not change, so the mean over all tokens changes by what the slow ones gained.
                gained = (slow - kept)[:, 1:].sum(dim=1)
                return Evolved(
                    x[:, 1:].mean(dim=1) + gained / self.config.tokens, slow[:, 0], tuple(selected), tuple(chosen_by)
                )
            x = torch.cat([slow, take_tokens(x, order[:, run.keep :])], dim=1)
            scores = None if kept_scores is None else torch.cat([kept_scores, ranked[:, run.keep :]], dim=1)
        stages = zip(*merged, strict=True) if merged else (tuple(selected), tuple(chosen_by))
        return Evolved(x[:, 1:].mean(dim=1), x[:, 0], *stages)

    def _run_merged(self, run: Segment, x: Tensor) -> tuple[Tensor, MergedStage]:
        """Run the blocks of one segment on x (B, N + 1, C) with its tokens merged; return x in the same order."""
        patches = x[:, 1:]
        scores = unlikeness(patches.detach(), self.config.grid)
        _, order = top_k(scores, self.config.tokens)
        merged = merge(take_rows(patches, order), run.keep)
        before = torch.cat([x[:, :1], merged.tokens], dim=1)
        after, _ = self._run(run, before, None, frozenset(), size_bias(merged.size))
        group = merged.group.scatter(1, order, merged.group)
        gained = take_rows((after - before)[:, 1:], group)
        stage = MergedStage(
            order[:, : run.keep], scores, order.gather(1, group), merged.margin.scatter(1, order, merged.margin)
        )
        return torch.cat([after[:, :1], patches + gained], dim=1), stage

    def _run(
        self, run: Segment, x: Tensor, scores: Tensor | None, scored: frozenset[int], bias: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Run the blocks of one segment on x (B, K + 1, C); return the new x and its scores (B, K), updated."""
        logits, tradeoffs = [], []
        for block in run.blocks:
            x, seen = self.blocks[block](x, block in scored, bias)
            if seen is not None:
                logits.append(seen.detach())
                tradeoffs.append(self.config.tradeoff(block))
        return x, global_attention(scores, logits, tradeoffs) if run.blocks[-1] in scored else None

    def classify(self, evolved: Evolved) -> Tensor:
        """Compute class logits (B, classes), or features (B, C) if there is no head, with the pooling of the config."""
        pooled = evolved.class_token if self.config.pooling == "class" else evolved.pooled
        logits: Tensor = self.head(self.norm(pooled))
        return logits

    def classify_class_token(self, evolved: Evolved) -> Tensor:
        """Compute class logits (B, classes) from the class token, which training uses to make its attention useful."""
        logits: Tensor = self.head_cls(self.norm_cls(evolved.class_token))
        return logits
