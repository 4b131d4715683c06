"""Student and teacher: a network, run at any keep ratios."""

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
    """The outputs of a network for B images.

    `features` (B, C) are the input of the classifier, after the last norm if there is one, or the network's output if
    it has no classifier. `logits` are (B, classes) or None.
    """

    features: Tensor
    logits: Tensor | None

    def rows(self, indices: Tensor) -> Answers:
        """Return the outputs for the images at `indices`."""
        return Answers(self.features[indices], None if self.logits is None else self.logits[indices])


def answers(network: Network, images: Tensor, ratios: Ratios | None = None) -> Answers:
    """Run `network` on images (B, 3, H, W), already normalised, keeping the share `ratios` in each stage.

    By default it keeps as many tokens as it is configured to.
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
    """Return a context in which products are computed in `precision`, and operations that need it in float32."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)


def trainable(network: Network) -> Network:
    """Return a copy of `network` to train.

    It stays in evaluation mode: batch norms keep their statistics, and their gains and offsets learn. Statistics
    collected at several keep ratios would fit none of them, and would depend on how many images are computed at once;
    export folds them into the weights.
    """
    return copy.deepcopy(network).eval().requires_grad_(True)


def average_of(network: Network) -> Network:
    """Return a copy of `network` that takes no gradients."""
    return copy.deepcopy(network).eval().requires_grad_(False)


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the weights of `average` towards those of `network`: a ← decay·a + (1 - decay)·w."""
    torch._foreach_lerp_([*average.parameters()], [*network.parameters()], 1 - decay)


def feature_width(config: ModelConfig) -> int:
    """Return the number of columns of `Answers.features`."""
    return config.width if isinstance(config, EvoDeiTConfig) else config.widths[-1]
