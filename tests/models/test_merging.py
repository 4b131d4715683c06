"""Merging of fast tokens, compared with loops over single tokens."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from cases import SMALL

from evodeploy.errors import UsageError
from evodeploy.models import merging
from evodeploy.models.checkpoint import load_checkpoint, load_checkpoint_like
from evodeploy.models.loaded import reconfigured
from evodeploy.models.random_weights import random_model
from evodeploy.models.saving import save_checkpoint
from evodeploy.models.zoo import ZOO, dense_twin, with_selection

MERGING = dataclasses.replace(SMALL, fast_path="merge")


def tokens(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_each_fast_token_goes_to_the_slow_one_that_correlates_most_and_is_averaged_with_it():
    slow, fast = tokens(2, 4, 16), tokens(2, 9, 16, seed=1)
    merged = merging.merge(torch.cat([slow, fast], dim=1), 4)
    for image in range(2):
        members = [[token] for token in slow[image]]
        for row, token in enumerate(fast[image]):
            alike = np.corrcoef(torch.cat([token[None], slow[image]]))[0, 1:]
            owner = int(alike.argmax())
            members[owner].append(token)
            assert merged.group[image, 4 + row] == owner
            best, second = np.sort(alike)[:-3:-1]
            assert float(merged.margin[image, 4 + row]) == pytest.approx(best - second, rel=1e-3)
        assert merged.group[image, :4].tolist() == [0, 1, 2, 3]
        assert merged.margin[image, :4].tolist() == [2, 2, 2, 2]
        assert merged.size[image].tolist() == [len(group) for group in members]
        expected = torch.stack([torch.stack(group).mean(dim=0) for group in members])
        torch.testing.assert_close(merged.tokens[image], expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_means_of_many_large_tokens_stay_in_the_range_of_half_precision(dtype):
    """Their sum does not: there are 256 tokens with values of about 300."""
    slow, fast = (300 + tokens(2, count, 32, seed=count) for count in (1, 255))
    merged = merging.merge(torch.cat([slow, fast], dim=1).to(dtype), 1)
    expected = torch.cat([slow, fast], dim=1).mean(dim=1, keepdim=True)
    assert merged.size.tolist() == [[256], [256]]
    torch.testing.assert_close(merged.tokens.double(), expected, rtol=torch.finfo(dtype).eps, atol=0)


def test_of_equally_similar_slow_tokens_the_first_is_the_owner():
    slow = tokens(1, 1, 8).repeat(1, 3, 1)
    merged = merging.merge(torch.cat([slow, tokens(1, 4, 8, seed=1)], dim=1), 3)
    assert merged.group[:, 3:].tolist() == [[0, 0, 0, 0]]
    assert merged.size.tolist() == [[5, 1, 1]]
    assert merged.margin[:, 3:].abs().max() < 1e-12


def test_without_fast_tokens_nothing_changes():
    slow = tokens(2, 4, 16)
    merged = merging.merge(slow, 4)
    torch.testing.assert_close(merged.tokens, slow, rtol=0, atol=0)
    assert (merged.size == 1).all()


def test_a_merged_token_counts_in_attention_as_often_as_it_has_members():
    """Compares attention over repeated tokens with attention over one token that counts as often."""
    query, keys = tokens(1, 2, 3, 8), tokens(1, 2, 4, 8, seed=1)
    size = torch.tensor([[1.0, 3.0, 2.0]], dtype=torch.float64)
    repeated = keys[:, :, [0, 1, 2, 2, 2, 3, 3]]
    attend = torch.nn.functional.scaled_dot_product_attention
    torch.testing.assert_close(
        attend(query, keys, keys, attn_mask=merging.size_bias(size)), attend(query, repeated, repeated)
    )


@pytest.mark.parametrize("grid", [3, 8, 14])
def test_the_slow_tokens_are_anchors_and_those_least_like_any_anchor(grid):
    patches = tokens(2, grid**2, 16)
    scores = merging.unlikeness(patches, grid)
    anchors = [row * grid + column for row in range(0, grid, 2) for column in range(0, grid, 2)]
    for image in range(2):
        for token in range(grid**2):
            alike = [np.corrcoef(patches[image, token], patches[image, anchor])[0, 1] for anchor in anchors]
            if token not in anchors:
                assert float(scores[image, token]) == pytest.approx(2 - max(alike), abs=1e-4)
        assert set(scores[image].argsort(descending=True)[: len(anchors)].tolist()) == set(anchors)
    assert len(set(scores[0, anchors].tolist())) == len(anchors)
    few = scores[0].argsort(descending=True)[: len(anchors) // 2]
    assert len({int(token) // grid // 4 for token in few}) == -(-grid // 4)  # even a few are from the whole image


@pytest.mark.parametrize("grid", [5, 14, 66])
def test_anchors_of_coarser_grids_come_first_and_those_of_one_grid_are_spread_out(grid):
    expected, index = np.zeros((grid, grid)), 0
    for row in range(0, grid, 2):
        for column in range(0, grid, 2):
            coarsest = max(level for level in range(6) if row % 2**level == column % 2**level == 0)
            expected[row, column] = 3 + coarsest + index * (math.sqrt(5) - 1) / 2 % 1
            index += 1
    np.testing.assert_allclose(merging.anchor_scores(grid).numpy(), expected.flatten(), atol=1e-5)


def by_hand(network, image):
    """Compute `EvoDeiT.evolve` with merging for one image in float64, token by token."""
    config = network.config
    x = network.embed(image[None])[0]
    kept, owners = [], []
    heads, scale = config.heads, (config.width // config.heads) ** -0.5

    def block(index, rows, sizes):
        layer = network.blocks[index]
        qkv = layer.attn.qkv(layer.norm1(rows)).reshape(len(rows), 3, heads, -1)
        mixed = torch.zeros(len(rows), heads, qkv.shape[-1], dtype=x.dtype)
        for head in range(heads):
            weights = (qkv[:, 0, head] @ qkv[:, 1, head].T * scale).exp() * sizes
            weights = weights / weights.sum(dim=1, keepdim=True)
            mixed[:, head] = weights @ qkv[:, 2, head]
        rows = rows + layer.attn.proj(mixed.flatten(1))
        return rows + layer.mlp(layer.norm2(rows))

    for run in config.segments_of():
        if not run.selects:
            for index in run.blocks:
                x = block(index, x, torch.ones(len(x), dtype=x.dtype))
            continue
        order = merging.unlikeness(x[None, 1:], config.grid)[0].argsort(descending=True, stable=True)
        slow, fast = order[: run.keep].tolist(), order[run.keep :].tolist()
        members = {token: [token] for token in slow}
        owner = {token: token for token in slow}
        for token in fast:
            alike = [float(np.corrcoef(x[1 + token], x[1 + other])[0, 1]) for other in slow]
            owner[token] = slow[int(np.argmax(alike))]
            members[owner[token]].append(token)
        sizes = torch.tensor([1.0, *(len(members[token]) for token in slow)], dtype=x.dtype)
        before = torch.stack([x[0], *(x[[1 + each for each in members[token]]].mean(dim=0) for token in slow)])
        rows = before
        for index in run.blocks:
            rows = block(index, rows, sizes)
        gained = rows - before
        after = x.clone()
        after[0] = rows[0]
        for token in range(config.tokens):
            after[1 + token] = x[1 + token] + gained[1 + slow.index(owner[token])]
        x = after
        kept.append(slow)
        owners.append([owner[token] for token in range(config.tokens)])
    return x, kept, owners


@pytest.mark.parametrize("selection", ["stage", "layer"])
def test_the_network_equals_the_loops(small, selection):
    model = reconfigured(small, dataclasses.replace(MERGING, selection=selection))
    network = model.module.double()
    images = tokens(2, 3, 64, 64)
    evolved = network.evolve(images)
    for row in range(2):
        x, kept, owners = by_hand(network, images[row])
        assert [selected[row].tolist() for selected in evolved.selected] == kept
        assert [owner[row].tolist() for owner in evolved.owners] == owners
        torch.testing.assert_close(evolved.class_token[row], x[0])
        torch.testing.assert_close(evolved.pooled[row], x[1:].mean(dim=0))


def test_keeping_every_token_is_the_dense_network(small):
    network = reconfigured(small, MERGING).module.double()
    images = tokens(2, 3, 64, 64)
    dense = reconfigured(small, dense_twin(MERGING)).module.double()
    torch.testing.assert_close(network.evolve(images, keep=(64, 64)).pooled, dense.evolve(images).pooled)


def test_the_fast_path_travels_with_checkpoints_modules_and_what_is_made_from_them(small, tmp_path):
    assert small.info.fast_path == "rest"
    model = reconfigured(small, MERGING)
    assert model.info.fast_path == "merge"
    save_checkpoint(model, tmp_path / "m.pth")
    for source in (tmp_path / "m.pth", model.module):
        assert load_checkpoint(source).info.fast_path == "merge"
        assert load_checkpoint(source, fast_path="rest").config.fast_path == "rest"
        assert load_checkpoint_like(source, small.info).info.fast_path == "rest"
        assert load_checkpoint_like(source, model.info).info.fast_path == "merge"


def test_an_evo_levit_does_not_merge():
    with pytest.raises(UsageError, match="EvoLeViT_128S sums up all dropped tokens.*leave out --fast-path"):
        with_selection(ZOO["EvoLeViT_128S"], fast_path="merge")
    assert random_model(with_selection(ZOO["EvoLeViT_128S"], fast_path="rest")).info.fast_path == "rest"
