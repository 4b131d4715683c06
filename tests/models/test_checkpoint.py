from __future__ import annotations

import argparse
import dataclasses
import math
import pickle

import pytest
import torch
from cases import SMALL, published

from evodeploy.errors import BadFileError, UsageError
from evodeploy.models.checkpoint import load_checkpoint
from evodeploy.models.checkpoint_file import read_checkpoint
from evodeploy.models.random_weights import random_model
from evodeploy.models.saving import save_checkpoint
from evodeploy.models.zoo import ZOO

ARGS = argparse.Namespace(model="evo_deit_test", num_heads=2, lr=5e-4, output_dir="out", data_set="IMNET", epochs=300)


@pytest.fixture
def same(small, small_images):
    """A function that checks that a file loads as the small network."""

    def check(path, **options):
        loaded = load_checkpoint(path, **options)
        images = torch.from_numpy(small_images)
        torch.testing.assert_close(loaded.module(images), small.module(images), rtol=0, atol=0)
        return loaded

    return check


def test_a_training_checkpoint_with_args_optimizer_and_scaler(tmp_path, small_state, same):
    content = {
        "model": small_state,
        "model_ema": small_state,
        "optimizer": {
            "state": {0: {"step": 3, "exp_avg": torch.zeros(3)}},
            "param_groups": [{"lr": 0.1, "params": [0]}],
        },
        "lr_scheduler": {"t": 3},
        "epoch": 299,
        "scaler": {"scale": 65536.0},
        "args": ARGS,
    }
    torch.save(content, tmp_path / "c.pth")
    loaded = same(tmp_path / "c.pth")
    assert loaded.config.heads == 2
    assert loaded.config.name == "evo_deit_test"
    raw = read_checkpoint(tmp_path / "c.pth")
    assert raw.epoch == 299
    assert raw.has_ema


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("key", [None, "state_dict", "model"])
def test_bare_nested_and_prefixed_states(tmp_path, small_state, same, prefix, key):
    state = {prefix + name: tensor for name, tensor in small_state.items()}
    content = {"args": ARGS, key: state} if key else state
    torch.save(content, tmp_path / "c.pth")
    if key:
        same(tmp_path / "c.pth")
    else:  # a bare state of this width does not state its heads, so heads of 64 channels are assumed
        assert load_checkpoint(tmp_path / "c.pth").config.heads == 1


def test_the_format_before_torch_1_6(tmp_path, small_state, same):
    torch.save({"model": small_state, "args": ARGS}, tmp_path / "c.pth", _use_new_zipfile_serialization=False)
    same(tmp_path / "c.pth")


def test_safetensors(tmp_path):
    from safetensors.torch import save_file

    state = published("evo_deit_tiny_patch16_224")
    save_file(state, tmp_path / "c.safetensors")
    loaded = load_checkpoint(tmp_path / "c.safetensors")
    assert loaded.config == ZOO["evo_deit_tiny_patch16_224"]


@pytest.mark.parametrize("name", sorted(name for name in ZOO if name.startswith("evo_deit")))
def test_published_variants_are_inferred_from_their_tensors(tmp_path, name):
    torch.save(published(name), tmp_path / "c.pth")
    loaded = load_checkpoint(tmp_path / "c.pth")
    assert loaded.config == ZOO[name]
    assert loaded.info.image_size == ZOO[name].image_size
    assert loaded.info.source == "c.pth"


def test_imagenet_classes_have_their_names(tmp_path):
    loaded = load_checkpoint(saved(tmp_path, published("evo_deit_tiny_patch16_224")))
    assert len(set(loaded.info.class_names)) == 1000
    assert [loaded.info.label(i) for i in (0, 207, 281, 517, 999)] == [
        "tench", "golden retriever", "tabby", "crane (machine)", "toilet tissue",
    ]  # fmt: skip


def test_another_class_count_loads_without_names(tmp_path):
    state = published("EvoLeViT_128S")
    for name in list(state):
        if name.startswith("head") and name.endswith((".l.weight", ".l.bias")):
            state[name] = state[name][:7].clone()
    loaded = load_checkpoint(saved(tmp_path, state))
    assert (loaded.config.name, loaded.config.num_classes) == ("EvoLeViT_128S", 7)
    assert loaded.info.label(3) == "class 3"


def test_training_only_heads_may_be_absent(tmp_path):
    state = published("evo_deit_tiny_patch16_224")
    torch.save({k: v for k, v in state.items() if "_cls." not in k}, tmp_path / "c.pth")
    assert load_checkpoint(tmp_path / "c.pth").config == ZOO["evo_deit_tiny_patch16_224"]


def test_ema_weights_on_request_only(tmp_path, small_state, small, small_images):
    other = {name: tensor * 1.1 for name, tensor in small_state.items()}
    torch.save({"model": small_state, "model_ema": other, "args": ARGS}, tmp_path / "c.pth")
    images = torch.from_numpy(small_images)
    plain, ema = load_checkpoint(tmp_path / "c.pth"), load_checkpoint(tmp_path / "c.pth", ema=True)
    assert torch.equal(plain.module(images), small.module(images))
    assert not torch.allclose(ema.module(images), plain.module(images))


def test_averaged_weights_as_timm_names_them(tmp_path, small_state):
    other = {name: tensor * 1.1 for name, tensor in small_state.items()}
    path = saved(tmp_path, {"state_dict": small_state, "state_dict_ema": other, "args": ARGS})
    assert read_checkpoint(path).has_ema
    assert torch.equal(load_checkpoint(path, ema=True).module.pos_embed, other["pos_embed"])
    assert torch.equal(load_checkpoint(path).module.pos_embed, small_state["pos_embed"])


def test_half_precision_weights_become_float32(tmp_path, small_state):
    torch.save({"model": {k: v.half() for k, v in small_state.items()}, "args": ARGS}, tmp_path / "c.pth")
    loaded = load_checkpoint(tmp_path / "c.pth")
    assert {parameter.dtype for parameter in loaded.module.parameters()} == {torch.float32}


def test_saving_and_loading_keeps_everything(tmp_path, small, same):
    save_checkpoint(small, tmp_path / "c.pth")
    loaded = same(tmp_path / "c.pth")
    assert loaded.config == SMALL


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "evo_deit_custom", "heads": 12},  # the published model of this size has 3 heads
        {"name": "x", "width": 448, "heads": 7, "mlp_ratio": math.nextafter(1840 / 448, 5)},
    ],
)
def test_saving_and_loading_keeps_any_heads_and_hidden_width(tmp_path, changes):
    config = dataclasses.replace(ZOO["evo_deit_tiny_patch16_224"], **changes)
    model = random_model(config)
    save_checkpoint(model, tmp_path / "c.pth")
    loaded = load_checkpoint(tmp_path / "c.pth")
    assert loaded.config == config
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    assert torch.equal(loaded.module(images), model.module(images))


def test_a_published_name_is_not_that_of_other_heads(tmp_path):
    config = dataclasses.replace(ZOO["evo_deit_tiny_patch16_224"], heads=12)
    assert load_checkpoint(random_model(config).module).config == dataclasses.replace(config, name="evo_deit_custom")


def test_random_weights_follow_their_seed():
    first, again, other = (random_model(SMALL, seed).module.head.weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


class Surprise:
    def __reduce__(self):
        return (print, ("code was run",))


def bad_files(tmp_path, state):
    whole = tmp_path / "whole.pth"
    torch.save({"model": state, "args": ARGS}, whole)
    data = whole.read_bytes()
    yield "truncated", data[: len(data) // 2], "damaged"
    yield "garbage", b"\x00\x01garbage" * 50, "damaged"
    yield "empty", b"", "is empty"
    yield "text", b"hello world, this is text", "damaged"
    yield "plain pickle", pickle.dumps({"model": Surprise()}), "damaged"
    torch.save({"model": Surprise()}, whole)
    yield "another class", whole.read_bytes(), "class print, which could run code"


def test_bad_files_get_one_sentence_and_run_no_code(tmp_path, small_state, capsys):
    for kind, data, message in bad_files(tmp_path, small_state):
        path = tmp_path / "bad.pth"
        path.write_bytes(data)
        with pytest.raises(BadFileError, match=message) as raised:
            load_checkpoint(path)
        assert "\n" not in str(raised.value), kind
    assert "code was run" not in capsys.readouterr().out


def saved(tmp_path, content):
    torch.save(content, tmp_path / "c.pth")
    return tmp_path / "c.pth"


def test_missing_unexpected_and_misshapen_tensors_are_listed(tmp_path, small_state):
    state = dict(small_state)
    del state["norms.3.bias"]
    state["extra.weight"] = torch.zeros(2)
    state["norm.weight"] = torch.zeros(63)
    with pytest.raises(BadFileError) as raised:
        load_checkpoint(saved(tmp_path, {"model": state, "args": ARGS}))
    message = str(raised.value)
    assert "1 missing (norms.3.bias)" in message
    assert "1 unexpected (extra.weight)" in message
    assert "norm.weight (63,) instead of (64,)" in message


def test_weights_that_are_not_finite_are_refused(tmp_path, small_state):
    state = small_state | {"head.bias": torch.full((10,), torch.nan)}
    with pytest.raises(BadFileError, match=r"not finite .head.bias"):
        load_checkpoint(saved(tmp_path, {"model": state, "args": ARGS}))


def test_another_network_is_refused_by_its_names(tmp_path):
    with pytest.raises(BadFileError, match=r"not an Evo-DeiT.* conv1.weight"):
        load_checkpoint(saved(tmp_path, {"conv1.weight": torch.zeros(3)}))


def test_a_dictionary_of_other_things_is_refused(tmp_path):
    with pytest.raises(BadFileError, match="'epoch' is of type int"):
        load_checkpoint(saved(tmp_path, {"epoch": 3}))
    with pytest.raises(BadFileError, match="holds an object of type list"):
        load_checkpoint(saved(tmp_path, [1, 2]))


def test_a_named_model_that_does_not_fit_is_refused(tmp_path, small_state):
    with pytest.raises(BadFileError, match="does not fit evo_deit_tiny_patch16_224"):
        load_checkpoint(saved(tmp_path, {"model": small_state, "args": ARGS}), model="evo_deit_tiny_patch16_224")


def test_a_named_model_of_other_heads_than_the_file_states_is_refused(tmp_path):
    config = dataclasses.replace(ZOO["evo_deit_tiny_patch16_224"], name="mine", heads=12)
    save_checkpoint(random_model(config), tmp_path / "c.pth")
    with pytest.raises(UsageError, match="states 12 attention heads, but evo_deit_tiny_patch16_224 has 3: leave out"):
        load_checkpoint(tmp_path / "c.pth", model="evo_deit_tiny_patch16_224")


def test_a_published_size_under_a_name_of_its_own_is_no_guess(tmp_path, caplog):
    content = {"model": published("evo_deit_tiny_patch16_224"), "args": argparse.Namespace(model="mine")}
    loaded = load_checkpoint(saved(tmp_path, content))
    assert loaded.config == dataclasses.replace(ZOO["evo_deit_tiny_patch16_224"], name="mine")
    assert loaded.info.class_names == ()
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("stated", "ratios"),
    [
        (0.7, (0.7, 0.7)),
        (1, (1.0, 1.0)),
        ([1, 0.5], (1.0, 0.5)),
        ([0.7], (0.7, 0.7)),
        (None, (0.5, 0.5)),
        (True, (0.5, 0.5)),
    ],
)
def test_the_keep_ratio_of_the_training_is_one_number_or_several(tmp_path, small_state, stated, ratios):
    torch.save({"model": small_state, "args": {"num_heads": 2, "keep_ratio": stated}}, tmp_path / "c.pth")
    model = load_checkpoint(tmp_path / "c.pth")
    assert model.config.keep_ratios == model.info.keep_ratios == ratios


def test_a_name_that_the_settings_do_not_state_is_read_from_arch(tmp_path):
    content = {"model": published("evo_deit_tiny_patch16_224"), "args": argparse.Namespace(lr=1e-4), "arch": "mine"}
    assert load_checkpoint(saved(tmp_path, content)).config.name == "mine"


def test_a_block_number_out_of_all_proportion_is_refused(tmp_path, small_state):
    state = small_state | {"qks.999999999.qk.weight": torch.zeros(1)}
    with pytest.raises(BadFileError, match="names block 999999999"):
        load_checkpoint(saved(tmp_path, {"model": state, "args": ARGS}))


def test_ema_that_is_not_there_is_refused(tmp_path, small_state):
    with pytest.raises(UsageError, match="no EMA weights"):
        load_checkpoint(saved(tmp_path, {"model": small_state, "args": ARGS}), ema=True)
