"""Student and teacher: one network, computed at any keep ratios."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from evodeploy.distillation.recipe import Ratios, TrainingPrecision
from evodeploy.models.evo_deit import EvoDeiT
from evodeploy.models.network import Network
from evodeploy.models.zoo import EvoDeiTConfig, ModelConfig


class Answers(NamedTuple):
    """What a network says of B pictures.

    `features` (B, C) is what its classifier reads, after the last norm where it has one, or its output where it has no
    classifier; `logits` (B, classes) or None.
    """

    features: Tensor
    logits: Tensor | None

    def rows(self, indices: Tensor) -> Answers:
        """Those of the pictures at `indices`."""
        return Answers(self.features[indices], None if self.logits is None else self.logits[indices])


def answers(network: Network, images: Tensor, ratios: Ratios | None = None) -> Answers:
    """What `network` says of images (B, 3, H, W), already normalised, keeping the share `ratios` of each stage.

    None is what it is configured to keep.
    """
    config = network.config
    keep = None
    if ratios is not None:
        keep = [int(ratio * tokens) for ratio, tokens in zip(ratios, config.stage_tokens, strict=True)]
    evolved = network.evolve(images, keep)
    output = network.classify(evolved).float()
    if not config.num_classes:
        return Answers(output, None)
    if isinstance(network, EvoDeiT):
        pooled = evolved.class_token if network.config.pooling == "class" else evolved.pooled
        return Answers(network.norm(pooled).float(), output)
    return Answers(evolved.pooled.float(), output)


def reduced(precision: TrainingPrecision, device: torch.device) -> torch.autocast:
    """A context in which products are computed in `precision`, and what needs it in float32."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)


def trainable(network: Network) -> Network:
    """A copy of `network` to be trained.

    It stays in evaluation mode: batch norms keep the statistics that they were trained with, and their gains and
    offsets learn. Statistics of a training at several keep ratios would be those of none of them, would depend on how
    many images are computed at once, and are folded into the weights at export.
    """
    return copy.deepcopy(network).eval().requires_grad_(True)


def average_of(network: Network) -> Network:
    """A copy of `network` that takes no gradients."""
    return copy.deepcopy(network).eval().requires_grad_(False)


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the weights of `average` towards those of `network`: a ← decay·a + (1 - decay)·w."""
    torch._foreach_lerp_([*average.parameters()], [*network.parameters()], 1 - decay)


def feature_width(config: ModelConfig) -> int:
    """Columns of `Answers.features`."""
    return config.width if isinstance(config, EvoDeiTConfig) else config.widths[-1]
