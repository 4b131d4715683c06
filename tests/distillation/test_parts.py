"""The parts of a distillation, without a training."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from data_kinds import write_tar

from evodeploy.datasets.examples import Example
from evodeploy.distillation import draws
from evodeploy.distillation.augmentation import FEW, NUMBERS, augmented, reason_not_to
from evodeploy.distillation.data import Listing, Pictures, held_out, listed
from evodeploy.distillation.evaluation import Probe, mean, quality
from evodeploy.distillation.losses import Objective, answer_loss, feature_loss, spread_of
from evodeploy.distillation.network import Answers, answers
from evodeploy.distillation.optimizer import Optimizer
from evodeploy.distillation.processes import Processes
from evodeploy.distillation.recipe import ROUND, Recipe
from evodeploy.errors import BadFileError, UsageError
from evodeploy.models.loaded import model_info
from evodeploy.models.random_weights import random_model
from evodeploy.models.zoo import EvoDeiTConfig

ELASTIC = Recipe((0.5, 0.5), (0.2, 1.0), epochs=2)


def test_the_learning_rate_rises_then_falls_to_nothing():
    rates = [ELASTIC.rate_at(step / 100) for step in range(101)]
    top = rates.index(max(rates))
    assert rates[top] == 1 and top == 10
    assert rates[:top] == sorted(rates[:top]) and rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] == pytest.approx(0, abs=1e-9)


def test_a_step_has_one_keep_ratio_and_each_round_both_ends():
    ratios = [draws.keep_ratios(ELASTIC, step) for step in range(len(ROUND) * 20)]
    assert all(first == second and 0.2 <= first <= 1 for first, second in ratios)
    for start in range(0, len(ratios), len(ROUND)):
        assert {0.2, 1.0} < {first for first, _ in ratios[start : start + len(ROUND)]}
    assert len(set(ratios)) == 2 + ROUND.count(None) * 20
    assert draws.keep_ratios(dataclasses.replace(ELASTIC, elastic=None), 3) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("ratios", "expected"), [((0.5,), "0.5"), ((0.5, 0.5), "0.5"), ((0.5, 0.3, 0.5), "0.5/0.3/0.5")]
)
def test_a_ratio_is_shown_once_where_all_stages_share_it(ratios, expected):
    assert f"keep ratio {expected}," in Recipe(ratios, epochs=1).in_words()


def test_small_weights_move_less_and_biases_as_much():
    network = torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(3)))
    for layer, size in zip(network, (0.05, 0.01, 0.0), strict=True):
        torch.nn.init.constant_(layer.weight, size)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    recipe = Recipe((0.5,), epochs=1, rate=1e-3, weight_decay=0.0)
    optimizer = Optimizer(network, recipe, torch.device("cpu"))
    optimizer.backward(sum(parameter.sum() for parameter in network.parameters()))
    optimizer.step(recipe.warm_up, Processes(), torch.zeros(1, dtype=torch.float64))
    moved = [float((old - new.detach()).mean()) for old, new in zip(before, network.parameters(), strict=True)]
    assert moved == pytest.approx([1e-3, 1e-3, 5e-4, 1e-3, 1e-4, 1e-3], rel=1e-3)


def test_an_epoch_has_every_picture_once_also_where_steps_cross_its_end():
    seen = [index for step in range(5) for index in draws.pictures(ELASTIC, step, 4, 10)]
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert seen[:10] != seen[10:]


def test_processes_share_a_step_without_a_rest():
    shares = [Processes(rank, 3).share(range(10)) for rank in range(3)]
    assert sorted(place for share in shares for place in share) == list(range(10))


def test_an_answer_that_ignores_the_picture_costs_one_and_the_teachers_own_nothing():
    teacher = torch.randn(500, 6, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 7) + 3
    spread = spread_of(teacher)
    same = teacher.mean(dim=0).expand_as(teacher)
    assert float(feature_loss(same, teacher, spread).mean()) == pytest.approx(1)
    assert float(feature_loss(teacher, teacher, spread).sum()) == 0
    assert float(answer_loss(teacher, teacher, 2.0).abs().max()) < 1e-5
    assert bool((answer_loss(same, teacher, 2.0) > 0).all())


def test_labels_count_where_they_have_a_weight():
    answers = Answers(torch.zeros(2, 3), torch.tensor([[0.0, 4.0], [4.0, 0.0]]))
    labels = torch.tensor([0, 1])
    without = Objective(torch.ones(3), 1.0)(answers, answers, labels)
    assert float(without) == pytest.approx(0, abs=1e-6)
    assert float(Objective(torch.ones(3), 1.0, 0.5)(answers, answers, labels)) == pytest.approx(4.018, abs=1e-3)


def test_a_probe_reads_features_and_agreement_counts_its_answers():
    labels = torch.arange(60) % 3
    features = torch.eye(3)[labels] + 0.1 * torch.randn(60, 3, generator=torch.Generator().manual_seed(1))
    probe = Probe.fitted(features, labels)
    teacher, student = Answers(features, None), Answers(features.roll(1, dims=1), None)
    assert quality(teacher, teacher, labels, probe).accuracy.value == 1
    assert quality(student, teacher, labels, probe).agreement.value == 0
    alone = quality(teacher, teacher, None, None)
    assert alone.agreement.value == 1 and alone.accuracy is None
    assert quality(student, teacher, None, None).agreement.value < 0


def test_an_interval_holds_its_mean_and_narrows_with_more_pictures():
    values = torch.linspace(0, 1, 50)
    few, many = mean(values), mean(values.repeat(9))
    assert few.low < many.low < 0.5 < many.high < few.high


def test_augmentation_suits_colourful_pictures_of_which_there_are_enough():
    photographs = np.random.default_rng(0).integers(20, 230, (4, 8, 8, 3), dtype=np.uint8)
    grey = np.repeat(photographs[..., :1], 3, axis=3)
    drawings = np.where(photographs > 128, 255, 0).astype(np.uint8)
    assert reason_not_to(FEW, photographs) is None
    assert "are few" in reason_not_to(FEW - 1, photographs)
    assert "no colour" in reason_not_to(FEW, grey)
    assert "black or white" in reason_not_to(FEW, drawings)


def test_augmented_pictures_are_others_within_their_range():
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    numbers = torch.rand(3, NUMBERS, generator=torch.Generator().manual_seed(1))
    changed = augmented(images, numbers)
    assert changed.shape == images.shape and changed.min() >= 0 and changed.max() <= 1
    assert torch.equal(changed[1:2], augmented(images[1:2], numbers[1:2]))  # each by its own numbers
    whole = torch.tensor([[1.0, 0.5, 0.5, 0.5, 1.0, 0.5, 0.5]])  # all of it, not mirrored, as light as it is
    assert torch.allclose(augmented(images[:1], whole), images[:1], atol=1e-5)
    whole[0, 4] = 0.0
    assert torch.allclose(augmented(images[:1], whole), images[:1].flip(3), atol=1e-5)


def test_every_fifth_picture_is_held_out_and_too_few_are_refused(tmp_path):
    listing = Listing("data", tuple(Example(str(i), tmp_path / str(i)) for i in range(23)), tuple(range(23)))
    train, held = held_out(listing)
    assert held.labels == (0, 5, 10, 15, 20)
    assert sorted(train.labels + held.labels) == list(range(23))
    with pytest.raises(UsageError, match="has 19 images, expected 20 or more"):
        held_out(listing.chosen(range(19)))


def test_class_folders_are_labels_also_of_a_network_without_classes(pictures):
    config = EvoDeiTConfig("backbone", 32, 2, depth=3, image_size=32, patch_size=8, num_classes=0, stages=(1, 2))
    listing = listed(pictures, model_info(config), True)
    assert [listing.labels.count(label) for label in range(4)] == [10] * 4
    with pytest.raises(UsageError, match="no images of two classes or more"):
        listed(pictures / "cat", model_info(config), True)


def test_pictures_in_no_class_folder_are_left_out_aloud(pictures, tmp_path, logged):
    shutil.copytree(pictures, tmp_path, dirs_exist_ok=True)
    shutil.copy(pictures / "cat" / "0.png", tmp_path / "stray.png")
    config = EvoDeiTConfig("tiny", 32, 2, depth=3, image_size=32, patch_size=8, num_classes=0, stages=(1, 2))
    for classes in (0, 4):
        info = model_info(dataclasses.replace(config, num_classes=classes))
        assert len(listed(tmp_path, info, True)) == 40
        assert logged[-1] == f"1 images of {tmp_path} are in no class, and are left out"


def test_pictures_of_a_tar_are_those_of_the_folder_that_it_was_made_of(pictures, tmp_path):
    files = sorted(pictures.rglob("*.png"))
    samples = {f"{file.parent.name}-{file.name}": file.read_bytes() for file in files}
    labels = {f"{file.parent.name}-{file.stem}.txt": file.parent.name.encode() for file in files}
    path = write_tar(tmp_path / "a.tar", samples | labels)
    info = model_info(EvoDeiTConfig("tiny", 32, 2, depth=3, image_size=32, patch_size=8, num_classes=4, stages=(1, 2)))
    ours, theirs = listed(path, info, True), listed(pictures, info, True)
    assert ours.labels == theirs.labels
    orders = [[3, 39, 0, 17], [38, 2]]
    first, second = Pictures(ours, info), Pictures(theirs, info)
    for one, other in zip(first.in_turn(orders), second.in_turn(orders), strict=True):
        np.testing.assert_array_equal(one, other)
    first.close(), second.close()
    numbered = {name: str(["bird", "cat", "dog", "fox"].index(data.decode())).encode() for name, data in labels.items()}
    write_tar(path, samples | numbered)
    for classes in (4, 0):  # numbers are classes of a network without a classifier, too
        assert listed(path, dataclasses.replace(info, num_classes=classes), True).labels == theirs.labels


def test_a_list_may_name_a_picture_that_is_not_there(pictures, tmp_path):
    """The next one takes its place."""
    files = [*sorted((pictures / "cat").iterdir()), tmp_path / "none.png"]
    (tmp_path / "list.txt").write_text("\n".join(map(str, files)))
    info = model_info(EvoDeiTConfig("tiny", 32, 2, depth=3, image_size=32, patch_size=8, stages=(1, 2)))
    listing = listed(tmp_path / "list.txt", info, False)
    without = listing.checksum()
    shutil.copy(files[0], files[-1])
    assert len(listing) == 11
    assert listing.checksum() != without


@pytest.mark.parametrize("pooling", ["class", "mean"])
def test_features_are_what_the_classifier_reads(pooling):
    config = EvoDeiTConfig(
        "tiny", 32, 2, depth=3, image_size=32, patch_size=8, num_classes=4, stages=(1, 2), pooling=pooling
    )
    network = random_model(config, seed=1).module
    found = answers(network, torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(network.head(found.features), found.logits)


def test_a_picture_that_cannot_be_read_is_named_where_none_can_take_its_place(tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    config = EvoDeiTConfig("tiny", 32, 2, depth=3, image_size=32, patch_size=8, stages=(1, 2))
    reader = Pictures(Listing("data", (Example("broken.png", broken),)), model_info(config))
    with pytest.raises(BadFileError, match=r"broken\.png cannot be used.*nor can another image of its class"):
        next(reader.in_turn([[0]]))
    reader.close()


def test_recipes_that_cannot_be_trained_are_refused():
    for changes, words in (
        ({"rate": 2.0}, "rate is 2.0"),
        ({"batch": 0}, "batch is 0"),
        ({"seed": 1.5}, "whole number"),
    ):
        with pytest.raises(UsageError, match=words):
            Recipe((0.5,), epochs=1, **changes)
