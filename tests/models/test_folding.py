import numpy as np
import pytest
import torch
from cases import INDEX, golden_images, golden_outputs
from levit_cases import network, published_network, random_images, relative_error, small
from levit_cases import weights as small_weights
from torch import nn

from evodeploy.models.evo_levit import EvoLeViT
from evodeploy.models.folding import folded
from evodeploy.models.random_weights import random_model
from evodeploy.models.zoo import ZOO, EvoDeiTConfig


@pytest.mark.parametrize("changes", [{}, {"selection": "layer"}, {"keep_ratios": (1.0, 1.0, 1.0)}])
def test_folding_is_exact(changes):
    config = small(**changes)
    model, images = network(config, small_weights(config)), random_images(config)
    short = folded(model)
    with torch.inference_mode():
        before, after = model.evolve(images), short.evolve(images)
        assert relative_error(short(images), model(images)) < 1e-12
    assert relative_error(after.class_token, before.class_token) < 1e-12
    assert len(after.selected) == len(before.selected)
    for got, expected in zip(after.selected, before.selected, strict=True):
        assert torch.equal(got, expected)


@pytest.mark.parametrize("tag", ["EvoLeViT_128S", "EvoLeViT_256"])
def test_folded_in_single_precision_gives_the_golden_outputs(tag):
    config = ZOO[INDEX[tag]["model"]]
    short, expected = folded(published_network(config)), golden_outputs(tag)
    with torch.inference_mode():
        evolved = short.evolve(golden_images(tag))
    for i, positions in enumerate(evolved.selected):
        np.testing.assert_array_equal(positions.sort(dim=1).values, expected[f"selected_{i}"])
    assert relative_error(short.classify(evolved), torch.from_numpy(expected["logits"])) < 1e-5


def test_nothing_is_left_to_fold_and_the_original_is_unchanged():
    config = small()
    model = EvoLeViT(config).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    short = folded(model)
    assert not any(isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)) for module in short.modules())
    assert isinstance(short.head, nn.Linear)
    assert all(tensor.dtype == torch.float32 for tensor in short.parameters())
    assert not short.training and not any(tensor.requires_grad for tensor in short.parameters())
    assert model.training and all(tensor.requires_grad for tensor in model.parameters())
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_network_without_batch_norms_only_has_its_queries_scaled():
    config = EvoDeiTConfig("tiny", width=32, heads=2, depth=6, image_size=64, stages=(2, 4), num_classes=5)
    model = random_model(config).module
    short = folded(model)
    assert short is not model
    before, after = dict(model.named_parameters()), dict(short.named_parameters())
    assert all(torch.equal(after[name], before[name]) for name in before if ".qkv." not in name)
    weight, scaled = before["blocks.0.attn.qkv.weight"], after["blocks.0.attn.qkv.weight"]
    assert torch.equal(scaled, torch.cat([weight[:32] * 16**-0.5, weight[32:]]))
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(short(images), model(images))
