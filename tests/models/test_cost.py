"""Calculated costs, compared with PyTorch's counts on the network itself."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from cases import SMALL
from levit_cases import small
from torch.utils.flop_counter import FlopCounterMode

from evodeploy.models.cost import cost_of
from evodeploy.models.layouts import layout_for
from evodeploy.models.zoo import dense_twin, named, with_selection

CONFIGS = {
    "small": SMALL,
    "layer-wise": with_selection(SMALL, (0.3, 0.6), "layer"),
    "without a classifier": dataclasses.replace(SMALL, num_classes=0),
    "levit": small(),
    "levit, layer-wise": with_selection(small(), selection="layer"),
    "EvoLeViT_128S_384": named("EvoLeViT_128S_384"),
    "EvoLeViT_192": named("EvoLeViT_192"),
    "EvoLeViT_384, dense": dense_twin(named("EvoLeViT_384")),
    "evo_deit_base_patch16_384": named("evo_deit_base_patch16_384"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_costs_are_what_pytorch_counts(name):
    config = CONFIGS[name]
    with torch.device("meta"):
        network = layout_for(config).network(config).eval()
        images = torch.empty(1, 3, config.image_size, config.image_size)
    # no_grad counts whole operators; inference_mode would decompose them, which takes twice the time.
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(images)
    cost = cost_of(config)
    assert cost.parameters == sum(parameter.numel() for parameter in network.parameters())
    assert cost.gflops == counter.get_total_flops() / 2e9
