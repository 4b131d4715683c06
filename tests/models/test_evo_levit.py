import numpy as np
import pytest
import torch
from cases import INDEX, golden_images, golden_outputs
from levit_cases import TAGS, Oracle, network, published_network, random_images, relative_error, small, weights

from evodeploy.models import levit_blocks
from evodeploy.models.evo_levit import EvoLeViT
from evodeploy.models.zoo import ZOO, with_selection


@pytest.mark.parametrize("tag", TAGS)
def test_golden_selections_exactly_and_logits(tag):
    config = with_selection(ZOO[INDEX[tag]["model"]], selection=INDEX[tag]["selection"])
    model = published_network(config)
    expected = golden_outputs(tag)
    with torch.inference_mode():
        evolved = model.evolve(golden_images(tag))
        logits = model.classify(evolved)
    assert len(evolved.selected) == len(config.selecting_of()) == len(expected) - 1
    for i, positions in enumerate(evolved.selected):
        assert positions.dtype == torch.int64
        np.testing.assert_array_equal(positions.sort(dim=1).values, expected[f"selected_{i}"])
    assert relative_error(logits, torch.from_numpy(expected["logits"])) < 1e-5


CASES = {
    "as published": small(),
    "layer-wise": small(selection="layer"),
    "uneven ratios": small(keep_ratios=(0.7, 0.3, 0.9)),
    "uneven ratios, layer-wise": small(keep_ratios=(0.3, 0.9, 0.5), selection="layer"),
    "dense at both ends": small(keep_ratios=(1.0, 0.5, 1.0)),
    "dense in the middle": small(keep_ratios=(0.5, 1.0, 0.5), selection="layer"),
    "dense": small(keep_ratios=(1.0, 1.0, 1.0)),
    "first stage selects nothing": small(depths=(2, 1, 3), keep_ratios=(0.5, 0.5)),
    "always-dense blocks reach the second stage": small(depths=(1, 3, 1), keep_ratios=(0.5, 0.5)),
    "three classes": small(num_classes=3),
    "two stages, four blocks deep": small(
        widths=(16, 24), heads=(1, 4), depths=(4, 4), keep_ratios=(0.4, 0.6), image_size=96
    ),
}


@pytest.mark.parametrize("config", CASES.values(), ids=CASES.keys())
def test_agrees_with_the_description_followed_image_by_image(config):
    state, images = weights(config), random_images(config)
    with torch.inference_mode():
        evolved = network(config, state).evolve(images)
        logits = network(config, state)(images)
    for i, answer in enumerate(map(Oracle(config, state), images)):
        assert [positions[i].sort().values.tolist() for positions in evolved.selected] == answer.selected
        assert len(evolved.scores) == len(answer.scores)
        for got, expected in zip(evolved.scores, answer.scores, strict=True):
            assert relative_error(got[i], expected) < 1e-9
        assert relative_error(evolved.class_token[i], answer.class_token) < 1e-9
        assert relative_error(logits[i], answer.logits) < 1e-9


def test_an_image_does_not_depend_on_its_batch():
    config = small()
    model, images = network(config, weights(config)), random_images(config, batch=4)
    with torch.inference_mode():
        together, alone = model(images), torch.cat([model(image[None]) for image in images])
    assert relative_error(together, alone) < 1e-9


@pytest.mark.parametrize(
    ("changes", "calls"),
    [
        ({"keep_ratios": (1.0, 1.0, 1.0)}, 0),
        ({}, 7),  # blocks 0 to 4 and both subsamplings come before the last selection
        ({"keep_ratios": (0.5, 0.5, 1.0)}, 4),
        ({"selection": "layer"}, 8),
    ],
)
def test_class_attention_is_computed_only_where_it_reaches_the_output(changes, calls, monkeypatch):
    config, counted = small(**changes), []

    def counting(*args):
        counted.append(args)
        return class_logits(*args)

    class_logits = levit_blocks.class_logits
    monkeypatch.setattr(levit_blocks, "class_logits", counting)
    network(config, weights(config))(random_images(config))
    assert len(counted) == calls


def test_tradeoffs_get_their_gradient_through_the_representative_tokens():
    config = small(keep_ratios=(0.8, 0.8, 0.3))  # the last fast tokens were slow in earlier stages
    model, images = network(config, weights(config)), random_images(config)
    selected = [positions.sort().values.tolist() for positions in model.evolve(images).selected]
    target = torch.randn(3, 10, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (model(images) * target).sum().backward()
    tradeoffs = {name: p for name, p in model.named_parameters() if name.endswith("learn_tradeoff")}
    reached = {name for name, p in tradeoffs.items() if p.grad is not None}
    # The first attention sets g, and those of the last stage come after the last selection.
    unused = {"stages.0.blocks.0", "stages.2.blocks.0", "stages.2.blocks.1"}
    assert reached == set(tradeoffs) - {f"{name}.attn.learn_tradeoff" for name in unused}
    for name in reached:
        slopes = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                tradeoffs[name] += step
                moved = model.evolve(images)
                slopes.append(float((model.classify(moved) * target).sum()) / step)
                tradeoffs[name] -= step
            assert selected == [positions.sort().values.tolist() for positions in moved.selected]
        numeric = sum(slopes) / 2
        assert abs(numeric) > 1e-6
        assert float(tradeoffs[name].grad) == pytest.approx(numeric, rel=1e-3)


def test_training_learns_and_moves_the_statistics():
    config = small(num_classes=3)
    torch.manual_seed(0)
    model = EvoLeViT(config).train()
    images, labels = random_images(config, batch=6).float(), torch.tensor([0, 1, 2, 0, 1, 2])
    before = model.stages[1].subsample.attn.kv.bn.running_mean.clone()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(8):
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert not torch.equal(model.stages[1].subsample.attn.kv.bn.running_mean, before)
    without = {name for name, p in model.named_parameters() if p.grad is None}
    assert without == {f"stages.{place}.attn.learn_tradeoff" for place in ("0.blocks.0", "2.blocks.0", "2.blocks.1")}
