from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import shutil

import numpy as np
import pytest
import torch
from data_kinds import write_tar
from levit_cases import small as small_levit
from vit_sources import TimmViT, filled

import evodeploy
from evodeploy.distillation import draws, job, loop, processes, setup, teaching
from evodeploy.distillation.data import Pictures, held_out, listed
from evodeploy.distillation.network import answers
from evodeploy.distillation.recipe import Recipe
from evodeploy.distillation.teaching import computed, tensor_of
from evodeploy.errors import BadFileError, OutOfMemoryError, RuntimeFailedError, UsageError
from evodeploy.models.checkpoint import load_checkpoint
from evodeploy.models.random_weights import random_model
from evodeploy.models.saving import save_checkpoint

SHORT = {"epochs": 1, "batch": 8, "rate": 1e-3, "precision": "fp32"}


def weights(path):
    return torch.load(path, weights_only=False)["model"]


def same(first, second):
    return all(torch.equal(tensor, weights(second)[name]) for name, tensor in weights(first).items())


def test_training_brings_back_what_selection_took(backbone, pictures, tmp_path):
    record = evodeploy.distill(
        backbone, pictures, tmp_path / "out.pth", keep_ratio=0.25, epochs=4, batch=8, rate=3e-3, precision="fp32"
    )
    (level,) = record.levels
    assert level.after.agreement.value > level.before.agreement.value + 0.1
    assert level.after.agreement.low < level.after.agreement.value < level.after.agreement.high


@pytest.mark.parametrize(("rate", "falls"), [(1e-4, False), (1.0, True)])
def test_a_training_that_costs_agreement_ends_with_a_warning(backbone, pictures, tmp_path, caplog, rate, falls):
    options = SHORT | {"keep_ratio": 0.9, "epochs": 4, "rate": rate}
    record = evodeploy.distill(backbone, pictures, tmp_path / "out.pth", **options)
    (level,) = record.levels
    assert (level.after.agreement.value < level.before.agreement.value) == falls
    found = [each for each in caplog.messages if each.startswith("at keep ratio 0.9 agreement fell from ")]
    assert len(found) == falls
    assert not falls or f" in {record.steps} steps: train longer" in found[0]


def test_the_checkpoint_says_how_it_came_about_and_counts_as_trained_to_select(classifier, pictures, tmp_path):
    output = tmp_path / "out.pth"
    record = evodeploy.distill(classifier, pictures, output, elastic=(0.25, 1.0), labels=True, **SHORT)
    loaded = load_checkpoint(output)
    assert loaded.trained_to_select
    assert loaded.config.keep_ratios == (0.5, 0.5)
    content = torch.load(output, weights_only=False)
    assert content["args"].elastic == [0.25, 1.0]
    assert content["distillation"] == json.loads(json.dumps(record.to_dict()))
    assert content["distillation"]["teacher_sha256"] == load_checkpoint(classifier).info.source_sha256
    assert [level["keep_ratios"][0] for level in content["distillation"]["levels"]] == [1.0, 0.7, 0.5, 0.3, 0.25]
    assert all(level.after.accuracy for level in record.levels)
    assert not (tmp_path / "out.pth.part").exists()


def test_what_takes_long_before_and_after_training_logs_its_progress(backbone, pictures, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(teaching, "LOG_EVERY", 0.0)
    monkeypatch.setattr(teaching, "AT_ONCE", 8)
    with caplog.at_level("INFO", "evodeploy"):
        evodeploy.distill(backbone, pictures, tmp_path / "out.pth", elastic=(0.25, 1.0), **SHORT)
    shown = [each for each in caplog.messages if " of " in each and "images" in each]
    held = [each for each in shown if each.startswith("evaluating before training, at keep ratio 0.25: ")]
    assert held and held == [
        each.replace("after", "before") for each in shown if "after training, at keep ratio 0.25" in each
    ]
    assert any(
        each.startswith("computing the outputs of the teacher, ") and each.endswith(": 8 of 32 images")
        for each in shown
    )


def test_the_same_seed_gives_the_same_weights_and_another_others(classifier, pictures, tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        evodeploy.distill(classifier, pictures, tmp_path / f"{name}.pth", elastic=(0.2, 1.0), seed=seed, **SHORT)
    assert same(tmp_path / "a.pth", tmp_path / "b.pth")
    assert not same(tmp_path / "a.pth", tmp_path / "c.pth")


def test_a_training_does_what_a_plain_loop_does(backbone, pictures, tmp_path):
    """One keep ratio a step, AdamW, clipped gradients, averaged weights; written out for one network."""
    steps, batch, rate = 12, 8, 1e-3
    options = SHORT | {"epochs": 3, "elastic": (0.25, 1.0), "micro_batch": 3}
    evodeploy.distill(backbone, pictures, tmp_path / "out.pth", **options)
    student, teacher = (load_checkpoint(backbone, keep_ratios=(ratio,)) for ratio in (0.5, 1.0))
    listing, _ = held_out(listed(pictures, student.info, labels=False))
    with contextlib.closing(Pictures(listing, student.info)) as reader:
        images = tensor_of(next(reader.in_turn([range(32)])), student.info.preprocessing, torch.device("cpu"))
    targets = teacher.module(images)
    spread = targets.std(dim=0, correction=0)
    network = student.module.requires_grad_(True)
    average = [parameter.detach().clone() for parameter in network.parameters()]
    sizes = [float(parameter.detach().square().mean().sqrt()) for parameter in network.parameters()]
    shares = [
        min(1, max(0.1, size / 0.02)) if parameter.ndim > 1 else 1
        for size, parameter in zip(sizes, network.parameters(), strict=True)
    ]
    adam = torch.optim.AdamW(
        {"params": [parameter], "weight_decay": 0.01 if parameter.ndim in (2, 4) else 0.0}
        for parameter in network.parameters()
    )
    recipe = Recipe((0.5, 0.5), (0.25, 1.0), epochs=3, batch=batch, micro_batch=3)
    for step in range(steps):
        ratio = draws.keep_ratios(recipe, step)[0]
        chosen = draws.pictures(recipe, step, batch, 32)
        found = network.classify(network.evolve(images[chosen], keep=[int(ratio * 16)] * 2))
        adam.zero_grad()
        ((found - targets[chosen]) / spread).square().mean().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for group, share in zip(adam.param_groups, shares, strict=True):
            group["lr"] = rate * recipe.rate_at(step / steps) * share
        adam.step()
        decay = min(0.95, (1 + step) / (10 + step))
        average = [
            decay * mean + (1 - decay) * parameter.detach()
            for mean, parameter in zip(average, network.parameters(), strict=True)
        ]
    result = load_checkpoint(tmp_path / "out.pth").module.parameters()
    start = load_checkpoint(backbone).module.parameters()
    difference = sum(float((mean - parameter).abs().sum()) for mean, parameter in zip(average, result, strict=True))
    moved = sum(float((mean - parameter).abs().sum()) for mean, parameter in zip(average, start, strict=True))
    assert (
        difference < 0.01 * moved
    )  # gradients that are zero but for rounding, of the keys' biases, AdamW makes whole steps


@pytest.mark.parametrize(("elastic", "kept"), [((0.6, 1.0), 0.6), ((0.2, 1.0), 0.5), ((0.1, 0.4), 0.4)])
def test_the_checkpoint_of_an_elastic_training_keeps_about_half_and_counts_as_trained(
    backbone, pictures, tmp_path, elastic, kept
):
    evodeploy.distill(backbone, pictures, tmp_path / "out.pth", elastic=elastic, **SHORT | {"epochs": 0.25})
    loaded = load_checkpoint(tmp_path / "out.pth")
    assert loaded.config.keep_ratios == (kept, kept)
    assert loaded.trained_to_select


class KilledError(Exception):
    pass


@pytest.mark.parametrize("kind", [{"elastic": (0.2, 1.0)}, {"keep_ratio": 0.5, "augment": True}])
def test_a_resumed_training_ends_where_an_uninterrupted_one_does(
    classifier, pictures, tmp_path, monkeypatch, kind, logged
):
    options = SHORT | {"epochs": 1.5} | kind
    evodeploy.distill(classifier, pictures, tmp_path / "whole.pth", **options)
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    output = tmp_path / "out.pth"
    state = tmp_path / "out.pth.part"

    def kill(step):
        if step.step == 4:
            shutil.copy(state, tmp_path / "third")  # what a kill some steps later would leave
        if step.step == 5:
            raise KilledError

    with pytest.raises(KilledError):
        evodeploy.distill(classifier, pictures, output, progress=kill, **options)
    assert not output.exists()
    shutil.copy(tmp_path / "third", state)
    with pytest.raises(UsageError, match="--resume to continue it"):
        evodeploy.distill(classifier, pictures, output, **options)
    with pytest.raises(UsageError, match=r"another distillation \(rate changed\)"):
        evodeploy.distill(classifier, pictures, output, resume=True, **options | {"rate": 1e-4})
    evodeploy.distill(classifier, pictures, output, resume=True, **options)
    assert "resuming after step 3" in logged
    assert same(tmp_path / "whole.pth", output)
    assert not state.exists()


def test_a_training_with_nothing_to_resume_logs_that_it_starts_anew(tmp_path, logged):
    part = tmp_path / "out.pth.part"
    assert job.state_of(part, {}, resume=True, force=False).progress.step == 0
    assert f"there is no {part} to resume: the training starts at step 0" in logged


@pytest.mark.parametrize("changed", ["student", "teacher"])
def test_a_training_is_not_resumed_with_other_settings_next_to_the_weights(
    classifier, pictures, tmp_path, monkeypatch, changed
):
    """Weights alone do not say of how many heads they are."""
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    sources = {name: tmp_path / name / "pytorch_model.bin" for name in ("student", "teacher")}
    for path in sources.values():
        path.parent.mkdir()
        torch.save(weights(classifier), path)
        (path.parent / "config.json").write_text('{"num_attention_heads": 2}')
    options = SHORT | {"keep_ratio": 0.5, "teacher": sources["teacher"]}

    def kill(step):
        if step.step == 2:
            raise KilledError

    with pytest.raises(KilledError):
        evodeploy.distill(sources["student"], pictures, tmp_path / "out.pth", progress=kill, **options)
    (tmp_path / changed / "config.json").write_text('{"num_attention_heads": 4}')
    with pytest.raises(UsageError, match=rf"another distillation \({changed} changed\)"):
        evodeploy.distill(sources["student"], pictures, tmp_path / "out.pth", resume=True, **options)


@pytest.mark.parametrize("augment", [True, False])
def test_in_place_of_a_picture_that_cannot_be_read_is_the_next_of_its_class(
    classifier, pictures, tmp_path, monkeypatch, logged, augment
):
    """Pixels, targets and label agree, also after resuming: all is as if its file was a copy of the next."""
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(setup, "SAMPLE", 8)  # which has none that cannot be read
    monkeypatch.setattr(job, "SAMPLE", 8)
    copied, broken = tmp_path / "copied", tmp_path / "broken"
    for folder in (copied, broken):
        shutil.copytree(pictures, folder)
    replaced = {"dog/9.png": "dog/1.png", "bird/5.png": "bird/0.png"}  # to train on, and to evaluate on
    for name, following in replaced.items():
        shutil.copy(copied / following, copied / name)
        (broken / name).write_bytes((broken / name).read_bytes()[:60])
    options = SHORT | {"epochs": 1.5, "keep_ratio": 0.5, "labels": True, "augment": augment}
    expected = evodeploy.distill(classifier, copied, tmp_path / "copied.pth", **options)

    def kill(step):
        if step.step == 5:
            raise KilledError

    with pytest.raises(KilledError):
        evodeploy.distill(classifier, broken, tmp_path / "broken.pth", progress=kill, **options)
    for name in replaced:
        assert len([line for line in logged if f"{broken / name} cannot be used" in line]) == 1
    found = evodeploy.distill(classifier, broken, tmp_path / "broken.pth", resume=True, **options)
    assert "resuming after step 4" in logged
    assert same(tmp_path / "copied.pth", tmp_path / "broken.pth")
    assert (found.levels, found.teacher) == (expected.levels, expected.teacher)


def test_a_training_is_resumed_with_a_smaller_micro_batch(classifier, pictures, tmp_path, monkeypatch):
    def kill(step):
        if step.step == 2:
            raise KilledError

    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    with pytest.raises(KilledError):
        evodeploy.distill(classifier, pictures, tmp_path / "out.pth", progress=kill, **SHORT)
    compared, sizes = loop.Loop._compared, []
    monkeypatch.setattr(
        loop.Loop, "_compared", lambda self, images, *rest: sizes.append(len(images)) or compared(self, images, *rest)
    )
    evodeploy.distill(classifier, pictures, tmp_path / "out.pth", resume=True, micro_batch=2, **SHORT)
    assert set(sizes) == {2}


@pytest.mark.parametrize("kind", ["classifier", "backbone"])
def test_pictures_to_evaluate_on_of_other_classes_are_refused(kind, pictures, tmp_path, request):
    """Taken in sorted order, the folders of a classifier without names would be other classes than in training."""
    shutil.copytree(pictures, tmp_path / "val")
    (tmp_path / "val" / "bird").rename(tmp_path / "val" / "goat")
    with pytest.raises(UsageError, match="classes that .* lacks, such as goat"):
        evodeploy.distill(
            request.getfixturevalue(kind), pictures, tmp_path / "out.pth", val=tmp_path / "val", labels=True, **SHORT
        )


def test_a_number_of_a_class_needs_no_image_to_train_on(classifier, pictures, tmp_path):
    image = (pictures / "bird" / "0.png").read_bytes()
    for name, classes in (("train", 3), ("val", 4)):
        samples = {f"{i}.png": image for i in range(20)} | {f"{i}.cls": b"%d" % (i % classes) for i in range(20)}
        write_tar(tmp_path / f"{name}.tar", samples)
    options = SHORT | {"keep_ratio": 0.5, "labels": True, "val": tmp_path / "val.tar"}
    record = evodeploy.distill(classifier, tmp_path / "train.tar", tmp_path / "out.pth", **options)
    assert (record.images, record.held_out) == (20, 20)


def test_too_few_pictures_are_refused_also_with_others_to_evaluate_on(classifier, pictures, tmp_path):
    shutil.copytree(pictures / "cat", tmp_path / "train")
    (tmp_path / "train" / "0.png").unlink()
    with pytest.raises(UsageError, match="has 9 images, expected 10 or more"):
        evodeploy.distill(classifier, tmp_path / "train", tmp_path / "out.pth", val=pictures, **SHORT)


def test_a_damaged_state_is_no_state(classifier, pictures, tmp_path):
    (tmp_path / "out.pth.part").write_bytes(b"PK\x03\x04 and nothing more")
    with pytest.raises(BadFileError, match="not the state of a distillation"):
        evodeploy.distill(classifier, pictures, tmp_path / "out.pth", resume=True, **SHORT)


def test_memory_that_runs_out_halves_what_is_computed_at_once(classifier, pictures, tmp_path, monkeypatch, logged):
    compared = loop.Loop._compared

    def limited(self, images, *rest):
        if len(images) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return compared(self, images, *rest)

    most, whole, halved = 2, [], []
    evodeploy.distill(classifier, pictures, tmp_path / "a.pth", keep_ratio=0.5, progress=whole.append, **SHORT)
    monkeypatch.setattr(loop.Loop, "_compared", limited)
    evodeploy.distill(classifier, pictures, tmp_path / "b.pth", keep_ratio=0.5, progress=halved.append, **SHORT)
    assert [line for line in logged if "memory" in line] == [
        "memory ran out: from now on 4 images are computed at once",
        "memory ran out: from now on 2 images are computed at once",
    ]
    assert [step.loss for step in halved] == pytest.approx([step.loss for step in whole], rel=1e-3)
    most = 0
    with pytest.raises(OutOfMemoryError, match="no memory for one image"):
        evodeploy.distill(classifier, pictures, tmp_path / "none.pth", **SHORT)


def test_memory_that_runs_out_halves_what_is_evaluated_at_once(classifier, pictures, tmp_path, monkeypatch, logged):
    def limited(network, images, *rest):
        if len(images) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return answers(network, images, *rest)

    most = 5
    whole = evodeploy.distill(classifier, pictures, tmp_path / "a.pth", keep_ratio=0.5, **SHORT)
    monkeypatch.setattr(teaching, "answers", limited)
    halved = evodeploy.distill(classifier, pictures, tmp_path / "b.pth", keep_ratio=0.5, **SHORT)
    found = [line for line in logged if "memory" in line]
    assert found[:3] == [f"memory ran out: from now on {count} images are computed at once" for count in (16, 8, 4)]
    assert halved.levels == whole.levels
    most = 0
    with pytest.raises(OutOfMemoryError, match="no memory for one image"):
        evodeploy.distill(classifier, pictures, tmp_path / "none.pth", **SHORT)


def test_many_pictures_are_shown_to_the_teacher_step_by_step(backbone, pictures, tmp_path, monkeypatch):
    once, each = [], []
    options = SHORT | {"keep_ratio": 0.5, "epochs": 0.5}
    evodeploy.distill(backbone, pictures, tmp_path / "a.pth", progress=once.append, **options)
    monkeypatch.setattr(job, "REMEMBERED", 31)
    asked = []
    monkeypatch.setattr(job, "computed", lambda network: asked.append(network) or computed(network))
    evodeploy.distill(backbone, pictures, tmp_path / "b.pth", progress=each.append, **options)
    assert len(asked) == 1
    assert [step.loss for step in each] == pytest.approx([step.loss for step in once], rel=1e-4)


def test_a_loss_that_is_no_number_ends_with_a_sentence(classifier, pictures, tmp_path, monkeypatch):
    compared = loop.Loop._compared

    def broken(self, *args):
        loss, agrees = compared(self, *args)
        return loss * (math.nan if self.state.progress.step == 2 else 1), agrees

    monkeypatch.setattr(loop.Loop, "_compared", broken)
    with pytest.raises(RuntimeFailedError, match=r"diverged in step 3: the loss is not a finite number\. The learning"):
        evodeploy.distill(classifier, pictures, tmp_path / "out.pth", **SHORT)
    assert not (tmp_path / "out.pth").exists()


def test_batch_norms_keep_their_statistics_and_learn_their_gains(pictures, tmp_path):
    source, output = tmp_path / "levit.pth", tmp_path / "out.pth"
    config = small_levit(
        widths=(16, 24), heads=(2, 3), depths=(3, 2), image_size=64, num_classes=4, keep_ratios=(0.5, 0.5)
    )
    save_checkpoint(random_model(config, seed=2), source)
    evodeploy.distill(source, pictures, output, elastic=(0.3, 1.0), **SHORT | {"epochs": 0.5})
    before, after = weights(source), weights(output)
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert not {name for name in changed if "running" in name or "num_batches" in name}
    assert {name for name in before if name.endswith("bn.weight")} & changed
    assert load_checkpoint(output).trained_to_select


@pytest.mark.parametrize(("asked", "expected", "rate"), [(None, "merge", 5e-6), ("rest", "rest", 2e-5)])
def test_a_plain_vit_learns_to_select_by_default_with_tokens_that_merge(pictures, tmp_path, asked, expected, rate):
    module, output = filled(TimmViT("ls", classes=0)), tmp_path / "out.pth"
    options = SHORT | {"epochs": 0.5, "elastic": (0.3, 1.0), "fast_path": asked, "rate": None}
    assert evodeploy.distill(module, pictures, output, **options).recipe.rate == rate
    loaded = load_checkpoint(output)
    assert loaded.trained_to_select
    assert (loaded.config.fast_path, loaded.config.pooling) == (expected, "class")
    assert torch.load(output, weights_only=False)["distillation"]["teacher_sha256"]


def test_what_is_assumed_of_student_and_teacher_is_said_once_of_each(tmp_path, caplog):
    """Of a plain ViT that keeps every token, and of a teacher of another image size."""
    path = tmp_path / "vit.pth"
    torch.save(filled(TimmViT()).state_dict(), path)
    student = setup.student_of(path, None, None, None, None, 32)
    assert student.config == load_checkpoint(filled(TimmViT()), keep_ratios=(0.5,), image_size=32).config
    assert (student.trained_at, student.trained_to_select) == (48, False)
    assert len(caplog.messages) == 1
    teacher = setup.teacher_of(path, student)
    assert (teacher.trained_at, teacher.info.dense) == (48, True)
    assert len(caplog.messages) == 2
    assert all("nothing states the number of attention heads" in each for each in caplog.messages)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_trains(classifier, pictures, tmp_path, precision):
    steps = []
    options = SHORT | {"precision": precision, "progress": steps.append}
    evodeploy.distill(classifier, pictures, tmp_path / "out.pth", keep_ratio=0.5, **options)
    assert len(steps) == 4
    assert all(math.isfinite(step.loss) for step in steps)
    assert steps[-1].done == 1 and steps[-1].seconds_left == 0
    assert not same(classifier, tmp_path / "out.pth")


def test_minutes_end_by_the_clock(classifier, pictures, tmp_path):
    steps = []
    options = SHORT | {"epochs": None, "minutes": 0.01, "progress": steps.append}
    record = evodeploy.distill(classifier, pictures, tmp_path / "out.pth", keep_ratio=0.5, **options)
    assert record.seconds >= 0.6 > record.seconds - (steps[-1].seconds - steps[-2].seconds if len(steps) > 1 else 9)
    assert record.computed == 8 * record.steps


def test_a_network_without_classes_is_read_by_a_probe_where_there_are_labels(backbone, pictures, tmp_path):
    record = evodeploy.distill(backbone, pictures, tmp_path / "out.pth", keep_ratio=0.5, labels=True, **SHORT)
    assert "linear probe" in str(record)
    assert record.recipe.label_weight == 0
    assert record.teacher.agreement.value == 1


def test_what_cannot_be_honoured_is_refused(classifier, backbone, pictures, tmp_path):
    output = tmp_path / "out.pth"
    for options, words in (
        ({"keep_ratio": 0.5, "elastic": (0.2, 1.0)}, "exclude each other"),
        ({"keep_ratio": 1.0}, "the network as it is"),
        ({"elastic": (0.9, 0.2)}, "expected LOW:HIGH"),
        ({"epochs": 1, "minutes": 1}, "not both"),
        ({"val": pictures}, "share images"),
        ({"teacher": backbone}, "gives features of 32 columns, expected logits of 4"),
        ({"device": "tpu"}, "expected cpu, cuda or cuda:N"),
        ({"precision": "int8"}, "expected one of fp32, bf16, fp16"),
        ({"elastic": (0.01, 1.0)}, "keeps none or too many"),
    ):
        with pytest.raises(UsageError, match=words):
            evodeploy.distill(classifier, pictures, output, **options)
    with pytest.raises(UsageError, match="the input itself"):
        evodeploy.distill(classifier, pictures, classifier, force=True)


def test_another_teacher_is_learnt_from(classifier, pictures, tmp_path):
    record = evodeploy.distill(classifier, pictures, tmp_path / "a.pth", keep_ratio=0.5, **SHORT)
    taught = evodeploy.distill(
        classifier, pictures, tmp_path / "b.pth", keep_ratio=0.5, teacher=tmp_path / "a.pth", **SHORT
    )
    assert taught.teacher_sha256 != record.teacher_sha256


def test_a_teacher_with_its_classes_in_another_order_is_refused(classifier, pictures, tmp_path):
    def named(path, *names):
        model = load_checkpoint(classifier)
        save_checkpoint(dataclasses.replace(model, info=dataclasses.replace(model.info, class_names=names)), path)
        return path

    student = named(tmp_path / "student.pth", "bird", "cat", "dog", "fox")
    teacher = named(tmp_path / "teacher.pth", "bird", "dog", "cat", "fox")
    with pytest.raises(UsageError, match=r"its classes in another order than the student \(cat\)"):
        evodeploy.distill(student, pictures, tmp_path / "out.pth", teacher=teacher, keep_ratio=0.5, **SHORT)
    others = named(tmp_path / "others.pth", "bird, fowl", "cat", "dog, hound", "fox")  # other words for the same
    assert setup.teacher_of(others, load_checkpoint(student)).info.class_names[0] == "bird, fowl"


def test_more_processes_than_pictures_in_a_step_are_refused(classifier, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "joined", lambda _: contextlib.nullcontext(processes.Processes(0, 9)))
    with pytest.raises(UsageError, match="each of the 9 processes .* every step, which has 8: give --batch 9"):
        evodeploy.distill(classifier, pictures, tmp_path / "out.pth", keep_ratio=0.5, **SHORT)
    assert list(tmp_path.iterdir()) == []


def test_a_keep_ratio_of_numpy_is_a_number(classifier, pictures, tmp_path):
    options = SHORT | {"keep_ratio": np.float32(0.5), "batch": np.int64(8)}
    assert evodeploy.distill(classifier, pictures, tmp_path / "out.pth", **options).recipe.keep_ratios == (0.5, 0.5)


def test_the_command_says_what_the_record_says(classifier, pictures, tmp_path, cli):
    options = ("--epochs", 1, "--batch", 8, "--precision", "fp32", "--elastic", "0.2:1.0", "--labels")
    code, out, err = cli("distill", classifier, "--images", pictures, "-o", tmp_path / "out.pth", *options)
    assert code == 0, err
    assert "8 images that were not trained on" in out
    assert "augmentation: off, because 32 images are few" in err
    assert out.splitlines()[-1] == f"next: evodeploy export {tmp_path / 'out.pth'} --elastic 0.2:1"
    code, out, err = cli("distill", classifier, "--images", pictures, "-o", tmp_path / "out.pth", *options, "--json")
    assert code == 2
    assert "already exists" in json.loads(out)["error"]["message"]
    code, out, _ = cli("distill", classifier, "--images", pictures, "-o", tmp_path / "b.pth", *options, "--json")
    assert json.loads(out)["recipe"]["elastic"] == [0.2, 1.0]
