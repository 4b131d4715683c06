"""What a model costs: parameters and multiply-adds, counted on the network itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from evodeploy.models.checkpoint import layout_for
from evodeploy.models.zoo import ModelConfig


@dataclass(frozen=True)
class Cost:
    """Parameters used at inference, and GFLOPs for one image with a multiply-add counted as one, as papers do."""

    parameters: int
    gflops: float


def cost_of(config: ModelConfig) -> Cost:
    """Count `config` by tracing the network without memory (PyTorch's meta device)."""
    with torch.device("meta"):
        network = layout_for(config).network(config).eval()
        images = torch.empty(1, 3, config.image_size, config.image_size)
    # Under no_grad operators are counted whole; inference_mode would take them apart, at twice the time.
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(images)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Cost(parameters, counter.get_total_flops() / 2e9)
