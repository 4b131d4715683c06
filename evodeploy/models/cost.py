"""The parameters and multiply-adds of a model, calculated from its configuration alone."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from evodeploy.models.evo_levit_config import EvoLeViTConfig
from evodeploy.models.zoo import EvoDeiTConfig, ModelConfig


@dataclass(frozen=True)
class Cost:
    """Parameters used at inference, and GFLOPs for one image; a multiply-add counts as one, as in papers.

    Only matrix products and convolutions are counted: additions, scaling and normalisation cost little in comparison.
    """

    parameters: int
    gflops: float


@dataclass
class _Sum:
    """Parameters and multiply-adds, added up layer by layer."""

    parameters: int = 0
    multiply_adds: int = 0

    def linear(self, rows: int, inputs: int, outputs: int, *, bias: bool = True, normed: bool = False) -> None:
        """Add a linear layer on `rows` rows; `normed` outputs have a scale and a shift each."""
        self.parameters += inputs * outputs + bias * outputs + 2 * normed * outputs
        self.multiply_adds += rows * inputs * outputs

    def attention(self, queries: int, keys: int, key_width: int, value_width: int) -> None:
        """Add the products of queries and keys, and of these with the values; the widths cover all heads together."""
        self.multiply_adds += queries * keys * (key_width + value_width)


def cost_of(config: ModelConfig) -> Cost:
    """Return the cost of a network of `config`."""
    total = _evo_levit(config) if isinstance(config, EvoLeViTConfig) else _evo_deit(config)
    return Cost(total.parameters, total.multiply_adds / 1e9)


def _evo_deit(config: EvoDeiTConfig) -> _Sum:
    width, hidden, total = config.width, int(config.width * config.mlp_ratio), _Sum()
    total.linear(config.tokens, 3 * config.patch_size**2, width)
    total.parameters += (config.tokens + 2) * width  # the positions, and the class token
    for kept in config.tokens_per_block:
        rows = kept + 1  # with the class token
        total.parameters += 4 * width  # two norms
        total.linear(rows, width, 3 * width)
        total.attention(rows, rows, width, width)
        total.linear(rows, width, width)
        total.linear(rows, width, hidden)
        total.linear(rows, hidden, width)
    total.parameters += 2 * width
    if config.num_classes:
        total.linear(1, width, config.num_classes)
    return total


def _evo_levit(config: EvoLeViTConfig) -> _Sum:
    widths, total = config.widths, _Sum()
    channels = (3, widths[0] // 8, widths[0] // 4, widths[0] // 2, widths[0])
    for halvings, (inputs, outputs) in enumerate(itertools.pairwise(channels), 1):
        pixels = (config.image_size // 2**halvings) ** 2
        total.linear(pixels, 9 * inputs, outputs, bias=False, normed=True)
    total.parameters += (config.tokens + 2) * widths[0]
    for stage, runs in enumerate(config.segments_of()):
        tokens = config.grids[stage] ** 2
        if stage:
            _subsampling(config, stage, total)
        for run in runs:
            for _ in run.blocks:
                # Includes the class token and, if any tokens rest, the representative token.
                _levit_block(run.keep + 1 + (run.keep < tokens), widths[stage], config.heads[stage], config, total)
    for _ in range(2):  # heads
        total.parameters += 2 * widths[-1]
        total.linear(1, widths[-1], config.num_classes)
    return total


def _levit_block(rows: int, width: int, heads: int, config: EvoLeViTConfig, total: _Sum) -> None:
    keys = heads * config.key_width
    total.parameters += 1  # the learnt trade-off of the scores
    total.linear(rows, width, 4 * keys, bias=False, normed=True)
    total.attention(rows, rows, keys, 2 * keys)
    total.linear(rows, 2 * keys, width, bias=False, normed=True)
    _levit_mlp(rows, width, total)


def _subsampling(config: EvoLeViTConfig, stage: int, total: _Sum) -> None:
    """Add the subsampling to the grid of `stage`: queries for its tokens, keys and values for the previous grid."""
    width, outputs = config.widths[stage - 1], config.widths[stage]
    before, rows = config.grids[stage - 1] ** 2 + 1, config.grids[stage] ** 2 + 1
    total.parameters += before * width + 1
    total.linear(before, width, 5 * width, bias=False, normed=True)
    total.linear(rows, width, width, bias=False, normed=True)
    total.attention(rows, before, width, 4 * width)
    total.linear(rows, 4 * width, outputs, bias=False, normed=True)
    _levit_mlp(rows, outputs, total)


def _levit_mlp(rows: int, width: int, total: _Sum) -> None:
    total.linear(rows, width, 2 * width, bias=False, normed=True)
    total.linear(rows, 2 * width, width, bias=False, normed=True)
