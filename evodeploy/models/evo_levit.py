"""Evo-LeViT: a LeViT whose blocks run on the tokens that its class token attends to (Evo-ViT, section 3).

Shapes are those of selection.py; N is the number of patch tokens in the current stage's grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from evodeploy.models.evo_levit_config import EvoLeViTConfig
from evodeploy.models.levit_blocks import Block, ConvBN, Subsample, TwinHead
from evodeploy.models.network import Evolved, Network
from evodeploy.models.segment import Segment
from evodeploy.models.selection import (
    global_attention,
    merge_tokens,
    representative_token,
    split_tokens,
    take_tokens,
    top_k,
)


class Stage(nn.Module):
    """The subsampling to one grid, absent for the first, and the blocks on the grid.

    `origins` (N,) are the positions of the grid's tokens in the first grid.
    """

    origins: Tensor
    subsample: Subsample

    def __init__(self, config: EvoLeViTConfig, index: int) -> None:
        super().__init__()
        width, key_width = config.widths[index], config.key_width
        if index > 0:
            self.subsample = Subsample(config.grids[index - 1], config.widths[index - 1], key_width, width)
        self.blocks = nn.ModuleList(Block(width, config.heads[index], key_width) for _ in range(config.depths[index]))
        self.register_buffer("origins", torch.tensor(config.origins(index)), persistent=False)


class EvoLeViT(Network):
    """The network without the heads on the class token, which only training uses."""

    def __init__(self, config: EvoLeViTConfig) -> None:
        super().__init__()
        self.config: EvoLeViTConfig = config
        first, last = config.widths[0], config.widths[-1]
        self.cls_token = nn.Parameter(torch.zeros(1, 1, first))
        self.pos_embed = nn.Parameter(torch.zeros(1, config.tokens + 1, first))
        self.patch_embed = nn.Sequential(
            ConvBN(3, first // 8),
            nn.Hardswish(),
            ConvBN(first // 8, first // 4),
            nn.Hardswish(),
            ConvBN(first // 4, first // 2),
            nn.Hardswish(),
            ConvBN(first // 2, first),
        )
        self.stages = nn.ModuleList(Stage(config, index) for index in range(len(config.depths)))
        self.head = TwinHead(last, config.num_classes)

    def evolve(self, images: Tensor, keep: Sequence[int] | None = None) -> Evolved:
        """See Network.

        `selected` holds positions in the first grid, `scores` those of the grid that tokens were selected from.
        """
        x = self.embed(images)
        segments = self.config.segments_of(keep)
        scored = self.config.scored_for(segments)
        last = segments[-1][-1]
        scores: Tensor | None = None
        selected, chosen_by = [], []
        for index, (stage, runs) in enumerate(zip(self._stages, segments, strict=True)):
            if index > 0:
                x, scores = stage.subsample(x, scores)
            tokens = x.shape[1] - 1
            for run in runs:
                if not run.selects:
                    x, scores = self._run(run, x, scores, scored)
                    continue
                assert scores is not None  # scored covers the blocks before every selection
                ranked, order = top_k(scores, tokens)
                positions = order[:, : run.keep]
                selected.append(stage.origins[positions])
                chosen_by.append(scores)
                slow, rows = split_tokens(x, positions)
                fast = take_tokens(x, order[:, run.keep :])
                representative = representative_token(fast, ranked[:, run.keep :])
                if keep is not None:
                    # Without fast tokens this is empty. Step 2 gives the same slice of one row as step 1, which
                    # exporters would drop because the trace has fast tokens. It is sliced in four dimensions: after a
                    # slice in three, OpenVINO in BF16 lays tokens out by channels and copies them at every product.
                    representative = representative[:, None, : tokens - run.keep : 2].squeeze(1)
                before = torch.cat([slow, representative], dim=1)
                after, slow_scores = self._run(run, before, ranked[:, : run.keep], scored)
                # Every fast token gains what the representative token gained. Without fast tokens there is none, and
                # the gain of the last row is overwritten or multiplied by zero.
                gained = after - before
                if run is last:
                    total = gained[:, 1 : run.keep + 1].sum(dim=1) + (tokens - run.keep) * gained[:, -1]
                    pooled = x[:, 1:].mean(dim=1) + total / tokens
                    return Evolved(pooled, after[:, 0], tuple(selected), tuple(chosen_by))
                x = merge_tokens(x + gained[:, -1:], after[:, : run.keep + 1], rows)
                scores = None if slow_scores is None else scores.scatter(1, positions, slow_scores)
        return Evolved(x[:, 1:].mean(dim=1), x[:, 0], tuple(selected), tuple(chosen_by))

    @property
    def _stages(self) -> list[Stage]:
        return cast("list[Stage]", list(self.stages))

    def _run(
        self, run: Segment, x: Tensor, scores: Tensor | None, scored: frozenset[int]
    ) -> tuple[Tensor, Tensor | None]:
        """Run the blocks of one segment on x (B, rows, C); return the new x and its scores (B, K), updated.

        A representative token, in the last row, takes part in the attention but has no score. The scores are None if
        no later selection needs them.
        """
        blocks = [cast("Block", block) for stage in self._stages for block in stage.blocks]
        logits, tradeoffs, heads = [], [], 1
        for index in run.blocks:
            attention = blocks[index].attn
            x, seen = blocks[index](x, index in scored)
            if seen is not None:
                logits.append(seen)
                tradeoffs.append(attention.tradeoff())
                heads = attention.heads
        return x, global_attention(scores, logits, tradeoffs, 1 / heads) if run.blocks[-1] in scored else None

    def classify(self, evolved: Evolved) -> Tensor:
        """Compute class logits (B, classes) from the pooled patch tokens."""
        logits: Tensor = self.head(evolved.pooled)
        return logits
