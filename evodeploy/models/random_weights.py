"""Networks with random weights, for tests and for timings."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from evodeploy.models.layouts import layout_for
from evodeploy.models.loaded import LoadedModel, model_info
from evodeploy.models.zoo import ModelConfig

# Gains of Evo-LeViT's random batch norms, by the ends of their names. Low gains after a branch keep the residuals from
# growing. Low gains at queries and keys keep attention from amplifying the rounding of float32.
_GAINS = {(".proj.1.bn.weight", ".m.2.bn.weight"): 0.5, (".qkv.bn.weight", ".kv.bn.weight", ".q.1.bn.weight"): 0.75}


def random_model(config: ModelConfig, seed: int = 0) -> LoadedModel:
    """Return a network with random weights, scaled so that attention is far from uniform and selections are clear."""
    layout = layout_for(config)
    generator = torch.Generator().manual_seed(seed)
    state = {name: _random(name, shape, generator) for name, shape in layout.required(config).items()}
    module = layout.network(config)
    module.load_state_dict(layout.to_module(state))
    return LoadedModel(module.eval().requires_grad_(False), config, model_info(config))


def _random(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    leaf = name.rsplit(".", 1)[-1]
    noise: Tensor = torch.randn(shape, generator=generator)
    if leaf == "weight" and len(shape) > 1:
        return noise * float(1.5 / math.prod(shape[1:]) ** 0.5)
    if leaf == "weight":
        gain = next((gain for ends, gain in _GAINS.items() if name.endswith(ends)), 1.0)
        return gain * (1 + 0.1 * noise)
    if leaf == "running_var":
        return 1 + 0.5 * noise.abs()
    return 0.5 * noise if leaf in ("cls_token", "pos_embed", "poss", "learn_tradeoff") else 0.1 * noise
