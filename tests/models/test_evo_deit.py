from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from cases import INDEX, SMALL, golden_images, golden_outputs, golden_tags, published
from reference import evo_deit

from evodeploy.models import evo_deit_layout
from evodeploy.models.evo_deit import EvoDeiT
from evodeploy.models.loaded import reconfigured
from evodeploy.models.random_weights import random_model
from evodeploy.models.zoo import ZOO, dense_twin, with_selection


@pytest.mark.parametrize("tag", golden_tags("evo_deit"))
def test_golden(tag):
    entry, images, expected = INDEX[tag], golden_images(tag), golden_outputs(tag)
    config = with_selection(ZOO[entry["model"]], selection=entry["selection"])
    state = {k: v for k, v in published(entry["model"]).items() if not k.startswith(("head_cls", "norm_cls"))}
    network = EvoDeiT(config).eval()
    network.load_state_dict(evo_deit_layout.to_module(state))
    with torch.inference_mode():
        evolved = network.evolve(images)
        logits = network.classify(evolved).numpy()
    assert len(evolved.selected) == sum(name.startswith("selected_") for name in expected)
    for i, positions in enumerate(evolved.selected):
        np.testing.assert_array_equal(positions.sort(dim=1).values.numpy(), expected[f"selected_{i}"])
    assert np.abs(logits - expected["logits"]).max() <= 1e-5 * np.abs(expected["logits"]).max()


CASES = [
    ((0.5, 0.5), "stage"),
    ((0.7, 0.3), "stage"),
    ((1.0, 0.4), "stage"),
    ((0.4, 1.0), "stage"),
    ((1.0, 1.0), "stage"),
    ((0.5, 0.25), "layer"),
    ((1.0, 0.5), "layer"),
    ((0.02, 0.02), "stage"),
]


@pytest.mark.parametrize(("keep_ratios", "selection"), CASES)
def test_any_keep_ratio_matches_the_plain_transcription(small, small_state, small_images, keep_ratios, selection):
    model = reconfigured(small, with_selection(SMALL, keep_ratios, selection))
    expected, kept = evo_deit(
        small_state,
        small_images,
        heads=SMALL.heads,
        stages=SMALL.stages,
        keep_ratios=keep_ratios,
        layerwise=selection == "layer",
    )
    with torch.inference_mode():
        evolved = model.module.evolve(torch.from_numpy(small_images))
        logits = model.module.classify(evolved).numpy()
    assert len(evolved.selected) == len(kept)
    for positions, sorted_positions in zip(evolved.selected, kept, strict=True):
        np.testing.assert_array_equal(positions.sort(dim=1).values.numpy(), sorted_positions)
    np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max(), rtol=0)


@pytest.mark.parametrize("selection", ["stage", "layer"])
def test_scores_are_given_by_position_however_the_tokens_have_moved(small, small_images, selection):
    model = reconfigured(small, with_selection(SMALL, (0.3, 0.6), selection))
    evolved = model.module.evolve(torch.from_numpy(small_images))
    for positions, scores in zip(evolved.selected, evolved.scores, strict=True):
        assert torch.equal(scores.topk(positions.shape[1]).indices.sort().values, positions.sort().values)


def test_the_dense_twin_selects_nothing_and_scores_nothing():
    twin = dense_twin(ZOO["evo_deit_small_patch16_224"])
    assert twin.selecting_of() == ()
    assert twin.scored_for(twin.segments_of()) == frozenset()
    assert twin.tokens_per_block == (196,) * 12


def test_published_settings_score_only_what_can_reach_a_selection():
    config = ZOO["evo_deit_small_patch16_224"]
    assert config.selecting_of() == (4, 8)
    assert config.scored_for(config.segments_of()) == {3, 4, 5, 6, 7}
    layerwise = with_selection(config, selection="layer")
    assert layerwise.selecting_of() == tuple(range(4, 12))
    assert layerwise.scored_for(layerwise.segments_of()) == set(range(3, 11))


def test_one_path_serves_training(small_images):
    network = EvoDeiT(SMALL, class_head=True).train()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    evolved = network.evolve(torch.from_numpy(small_images))
    loss = network.classify(evolved).square().mean() + network.classify_class_token(evolved).square().mean()
    loss.backward()
    without = [name for name, parameter in network.named_parameters() if not parameter.grad.abs().sum() > 0]
    assert without == []


def test_computing_changes_nothing_in_the_network(small, small_images):
    before = {name: value.clone() for name, value in small.module.state_dict().items()}
    first = small.module(torch.from_numpy(small_images))
    second = small.module(torch.from_numpy(small_images))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    for name, value in small.module.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_images_of_a_batch_do_not_influence_each_other(small, small_images):
    whole = small.module(torch.from_numpy(small_images))
    for i in range(len(small_images)):
        alone = small.module(torch.from_numpy(small_images[i : i + 1]))
        torch.testing.assert_close(alone[0], whole[i], rtol=1e-4, atol=1e-5)


def test_custom_sizes_train_and_run():
    config = dataclasses.replace(
        SMALL, width=48, heads=3, depth=3, image_size=40, patch_size=10, stages=(1,), keep_ratios=(0.3,), num_classes=7
    )
    model = random_model(config)
    evolved = model.module.evolve(torch.zeros(2, 3, 40, 40))
    assert evolved.selected[0].shape == (2, 4)
    assert model.module.classify(evolved).shape == (2, 7)
