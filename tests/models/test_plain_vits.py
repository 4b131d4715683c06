"""Plain vision transformers in every naming: at keep ratio 1.0 they equal the source, below 1.0 they run.

Networks with unsupported parts are refused, and the error names the part.
"""

from __future__ import annotations

import argparse
import dataclasses
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from vit_sources import CLASSES, DEPTH, PATCH, SIZE, SOURCES, WIDTH, HuggingFace, TimmViT, filled

from evodeploy.compare.export import verify_export
from evodeploy.errors import BadFileError, UsageError
from evodeploy.exporter.to_onnx import onnx_from_model
from evodeploy.models.checkpoint import load_checkpoint
from evodeploy.models.loaded import reconfigured
from evodeploy.models.positions import resized
from evodeploy.models.random_weights import random_model
from evodeploy.models.saving import save_checkpoint
from evodeploy.models.zoo import ZOO, dense_twin
from evodeploy.onnx_files import write_onnx


@pytest.fixture
def images():
    return torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(4))


def saved(tmp_path, state, name="c.pth"):
    if name.endswith(".safetensors"):
        from safetensors.torch import save_file

        save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / name)
    else:
        torch.save(state, tmp_path / name)
    return tmp_path / name


def error(got, expected):
    return float((got - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("source", SOURCES)
def test_keeping_every_token_is_the_source_network(tmp_path, images, source, suffix):
    original = filled(SOURCES[source]())
    path = saved(tmp_path, original.state_dict(), f"c.{suffix}")
    model = load_checkpoint(path)
    expected = original(images)
    assert model.config.keep_ratios == (1.0, 1.0)
    assert not model.trained_to_select
    assert error(model.module(images), expected) < 1e-5
    assert model.config.depth == DEPTH
    assert model.config.heads == 2
    assert model.config.pooling == model.info.pooling == ("mean" if "mean-pooled" in source else "class")
    assert model.info.output == ("logits" if expected.shape[1] == CLASSES else "features")
    kept = load_checkpoint(path, keep_ratios=(0.5,))
    evolved = kept.module.evolve(images)
    assert [positions.shape[1] for positions in evolved.selected] == [18, 18]
    assert 1e-3 < error(kept.module(images), expected) < 2


def test_the_epsilon_is_the_familys(tmp_path):
    for source, eps in {"timm ViT": 1e-6, "Hugging Face ViT": 1e-12, "Hugging Face DINOv2": 1e-6}.items():
        model = load_checkpoint(saved(tmp_path, filled(SOURCES[source]()).state_dict()))
        norms = [module.eps for module in model.module.modules() if isinstance(module, torch.nn.LayerNorm)]
        assert set(norms) == {eps}, source


def test_the_stages_can_be_chosen(tmp_path, images):
    path = saved(tmp_path, filled(TimmViT()).state_dict())
    model = load_checkpoint(path, stages=(1, 3, 5), keep_ratios=(0.7,))
    assert model.config.selecting_of() == model.info.stages == (1, 3, 5)
    assert model.config.tokens_per_block == (36, 25, 25, 25, 25, 25)
    assert load_checkpoint(path, stages=(3,)).config.keep_ratios == (1.0,)
    assert len(model.module.evolve(images).selected) == 3
    with pytest.raises(UsageError, match="must begin, in order, after block 0 of 6"):
        load_checkpoint(path, stages=(4, 9))


@pytest.mark.parametrize("source", ["timm ViT, mean-pooled", "DINOv2", "Hugging Face ViT"])
def test_saving_and_loading_gives_the_same_network(tmp_path, images, source):
    path = saved(tmp_path, filled(SOURCES[source]()).state_dict())
    for keep in (0.5, 1.0):
        model = load_checkpoint(path, stages=(2, 5), keep_ratios=(keep,))
        save_checkpoint(model, tmp_path / "again.pth")
        again = load_checkpoint(tmp_path / "again.pth")
        assert again.config == model.config
        assert again.trained_to_select == (keep < 1)  # the saved keep ratios decide
    assert torch.equal(again.module(images), model.module(images))


@pytest.mark.parametrize("source", ["timm ViT", "timm ViT, mean-pooled", "DINOv2"])
def test_the_export_agrees_with_pytorch(tmp_path, source):
    model = load_checkpoint(saved(tmp_path, filled(SOURCES[source]()).state_dict()), keep_ratios=(0.5,))
    proto = onnx_from_model(model, tokens=True)
    write_onnx(proto, tmp_path / "c.onnx")
    assert [value.name for value in proto.graph.output][:3] == [model.info.output, "selected_0", "selected_1"]
    checks = list(verify_export(model, tmp_path / "c.onnx"))
    assert all(check.passed for check in checks), checks
    if source != "timm ViT, mean-pooled":  # the mean of the patch tokens is not computed if it is not used
        assert "ReduceMean" not in {node.op_type for node in proto.graph.node}


POSITIONS = torch.randn(1, 37, 16, generator=torch.Generator().manual_seed(1))


def test_positions_are_resized_as_each_family_does():
    square = POSITIONS[:, 1:].reshape(1, 6, 6, 16).permute(0, 3, 1, 2)

    def rows(interpolated):
        return torch.cat([POSITIONS[:, :1], interpolated.permute(0, 2, 3, 1).reshape(1, -1, 16)], dim=1)

    plain = rows(F.interpolate(square, size=(4, 4), mode="bicubic", align_corners=False))
    smooth = rows(F.interpolate(square, size=(4, 4), mode="bicubic", align_corners=False, antialias=True))
    dinov2 = rows(F.interpolate(square, scale_factor=4.1 / 6, mode="bicubic", align_corners=False))
    assert torch.equal(resized(POSITIONS, 4), plain)
    assert torch.equal(resized(POSITIONS, 4, antialias=True), smooth)
    assert torch.equal(resized(POSITIONS, 4, offset=0.1), dinov2)
    assert len({tuple(x.flatten().tolist()) for x in (plain, smooth, dinov2)}) == 3
    assert torch.equal(resized(POSITIONS, 6), POSITIONS)


@pytest.mark.parametrize(
    ("source", "recipe"), [("timm ViT", {"antialias": True}), ("DINOv2", {"offset": 0.1}), ("Hugging Face DINOv2", {})]
)
def test_the_image_size_is_chosen(tmp_path, source, recipe):
    original = filled(SOURCES[source]())
    path = saved(tmp_path, original.state_dict())
    model = load_checkpoint(path, image_size=4 * PATCH)
    assert (model.info.image_size, model.trained_at) == (32, SIZE)
    before = load_checkpoint(path).module.pos_embed
    assert torch.equal(model.module.pos_embed, resized(before, 4, **recipe))
    assert model.module(torch.randn(2, 3, 32, 32)).shape == (2, model.config.output_width)
    with pytest.raises(UsageError, match="image size 36 a positive multiple of the patch size 8"):
        load_checkpoint(path, image_size=36)


def test_an_evo_deit_takes_another_image_size_and_an_evo_levit_none(tmp_path, small_checkpoint):
    from levit_cases import small as small_levit

    assert load_checkpoint(small_checkpoint, image_size=96).config.tokens == 144
    assert load_checkpoint(small_checkpoint, image_size=64).trained_at is None
    save_checkpoint(random_model(small_levit()), tmp_path / "levit.pth")
    with pytest.raises(UsageError, match="px only: leave out --image-size"):
        load_checkpoint(tmp_path / "levit.pth", image_size=512)
    with pytest.raises(UsageError, match="leave out --stages"):
        load_checkpoint(tmp_path / "levit.pth", stages=(1,))


TIMM, FACE = TimmViT("ls", masked=True).state_dict(), HuggingFace("dinov2").state_dict()
ONE = torch.ones(1)
REFUSED = {
    "a distillation token .'dist_token'": TIMM | {"dist_token": ONE},
    "a distillation token .'head_dist": TIMM | {"head_dist.weight": ONE},
    "register tokens .'reg_token'": TIMM | {"reg_token": ONE},
    "register tokens .'register_tokens'": TIMM | {"register_tokens": ONE},
    "register tokens .'embeddings.register_tokens'": FACE | {"dinov2.embeddings.register_tokens": ONE},
    "a distillation token .'embeddings.dist": FACE | {"dinov2.embeddings.distillation_token": ONE},
    "SwiGLU MLP .'blocks.0.mlp.w12": TIMM | {"blocks.0.mlp.w12.weight": ONE},
    "SwiGLU MLP .'encoder.layer.0.mlp.weights_in": FACE | {"dinov2.encoder.layer.0.mlp.weights_in.weight": ONE},
    "SwiGLU MLP .'blocks.0.mlp.fc1'": TIMM | {"blocks.0.mlp.fc1.weight": torch.ones(8 * WIDTH, WIDTH)},
    "query and key norms": TIMM | {"blocks.0.attn.q_norm.weight": ONE},
    "relative position": TIMM | {"blocks.0.attn.relative_position_bias_table": ONE},
    "a BEiT bias": TIMM | {"blocks.0.attn.q_bias": ONE},
    "a norm before its blocks": TIMM | {"norm_pre.weight": ONE},
    "a norm before and after pooling": TIMM | {"fc_norm.weight": ONE},
    "parallel attentions": {name.replace(".attn.", ".attns.0.attn."): tensor for name, tensor in TIMM.items()},
    "blocks in chunks": TIMM | {"blocks.0.5.attn.qkv.weight": ONE},
    "no class token": {name: tensor for name, tensor in TIMM.items() if name != "cls_token"},
    "no learnt positions": {name: tensor for name, tensor in TIMM.items() if name != "pos_embed"},
    "'pos_embed' has 30 rows": TIMM | {"pos_embed": torch.ones(1, 30, WIDTH)},
    "one scale for each row of 'blocks.1.attn.proj'": TIMM | {"blocks.1.ls1.gamma": torch.ones(3)},
    "1 missing .blocks.3.norm1.bias": {n: t for n, t in TIMM.items() if n != "blocks.3.norm1.bias"},
    "1 unexpected .decoder.weight": TIMM | {"decoder.weight": ONE},
    "1 unexpected .encoder.layer.0.extra.weight": FACE
    | {"dinov2.encoder.layer.0.extra.weight": ONE},
    "class token next to the patches' mean": FACE | {"classifier.weight": torch.ones(CLASSES, 2 * WIDTH)},
    "attention has weight for k, q, expected": {n: t for n, t in FACE.items() if ".2.attention.attention.v" not in n},
    "1 missing .blocks.3.attn.qkv.bias": {n: t for n, t in TIMM.items() if n != "blocks.3.attn.qkv.bias"},
    "11 layer scales in 6 blocks, expected two in each": {n: t for n, t in TIMM.items() if n != "blocks.3.ls2.gamma"},
    "13 layer scales in 6 blocks, expected two in each": TIMM | {"blocks.3.gamma_2": TIMM["blocks.3.ls2.gamma"]},
    "names block 99999": TimmViT().state_dict() | {"blocks.99999.norm1.weight": ONE},
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_not_computed_is_refused_by_name(tmp_path, message):
    with pytest.raises(BadFileError, match=message) as raised:
        load_checkpoint(saved(tmp_path, REFUSED[message]))
    assert "\n" not in str(raised.value)


def test_heads_that_cannot_be_inferred_are_asked_for(tmp_path):
    state = dict(TimmViT(heads=4).state_dict())
    args = argparse.Namespace(num_heads=4)
    assert load_checkpoint(saved(tmp_path, {"model": state, "args": args})).config.heads == 4
    odd = {name: tensor[..., :96] if tensor.shape[-1] == WIDTH else tensor for name, tensor in state.items()}
    odd["patch_embed.proj.weight"] = torch.zeros(96, 3, PATCH, PATCH)
    with pytest.raises(UsageError, match="heads of width 96 .* expected 'num_heads'"):
        load_checkpoint(saved(tmp_path, odd))


def hub(tmp_path, files, source="Hugging Face ViT"):
    for name, content in files.items():
        (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return saved(tmp_path, filled(SOURCES[source]()).state_dict(), "model.safetensors")


def test_a_hugging_face_config_next_to_the_file_states_heads_epsilon_labels_and_preprocessing(tmp_path):
    config = {"num_attention_heads": 4, "layer_norm_eps": 1e-5, "hidden_act": "gelu"}
    config["id2label"] = {str(index): f"label {index}" for index in range(CLASSES)}
    prepared = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "resample": 2, "size": {"height": 48, "width": 48}}
    path = hub(tmp_path, {"config.json": config, "preprocessor_config.json": prepared})
    model = load_checkpoint(path)
    assert (model.config.heads, model.config.norm_eps) == (4, 1e-5)
    assert model.info.label(3) == "label 3"
    pre = model.info.preprocessing
    assert (pre.mean, pre.std, pre.interpolation, pre.crop_pct) == ((0.5,) * 3, (0.25,) * 3, "bilinear", 1.0)
    other = path.rename(tmp_path / "other.safetensors")  # the config may belong to another model
    assert load_checkpoint(other).config.heads == 2


def test_a_config_next_to_the_file_states_what_the_settings_in_it_do_not(tmp_path):
    config = {"num_attention_heads": 4, "layer_norm_eps": 1e-5, "id2label": {str(i): f"l{i}" for i in range(CLASSES)}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    content = {"model": filled(SOURCES["Hugging Face ViT"]()).state_dict(), "args": {"lr": 0.1, "norm_eps": 1e-4}}
    torch.save(content, tmp_path / "pytorch_model.bin")
    model = load_checkpoint(tmp_path / "pytorch_model.bin")
    assert (model.config.heads, model.config.norm_eps, model.info.label(3)) == (4, 1e-4, "l3")


def test_a_timm_config_next_to_the_file_states_its_name_and_preprocessing(tmp_path):
    source = {"mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 0.9, "interpolation": "bicubic"}
    config = {"architecture": "vit_tiny_patch8_48", "pretrained_cfg": source}
    model = load_checkpoint(hub(tmp_path, {"config.json": config}, "timm ViT"))
    assert model.config.name == "vit_tiny_patch8_48"
    assert model.info.preprocessing.mean == (0.5,) * 3
    assert model.info.preprocessing.resized(224) == 248


@pytest.mark.parametrize(
    ("content", "message"),
    [({"hidden_act": "relu\x1b[2J"}, r"the activation 'relu\\x1b\[2J', expected 'gelu'"), ("{", "not readable JSON")],
)
def test_a_config_that_does_not_fit_is_refused(tmp_path, content, message):
    with pytest.raises(BadFileError, match=message):
        load_checkpoint(hub(tmp_path, {"config.json": content}))


def test_the_dense_twin_keeps_pooling_and_epsilon(tmp_path):
    model = load_checkpoint(saved(tmp_path, filled(SOURCES["Hugging Face ViT"]()).state_dict()), keep_ratios=(0.5,))
    twin = reconfigured(model, dense_twin(model.config))
    assert not twin.trained_to_select
    assert dataclasses.replace(twin.config, keep_ratios=(0.5, 0.5)) == model.config
    assert twin.info.pooling == "class"


def test_features_are_no_classes(tmp_path):
    import evodeploy

    path = saved(tmp_path, filled(SOURCES["DINOv2"]()).state_dict())
    with evodeploy.load(path) as predictor:
        assert predictor.predict_logits(np.zeros((2, 3, SIZE, SIZE), np.float32)).shape == (2, WIDTH)
        assert predictor.predict_logits(np.zeros((0, 3, SIZE, SIZE), np.float32)).shape == (0, WIDTH)
        with pytest.raises(UsageError, match="no classifier: it gives features"):
            predictor.predict(np.zeros((SIZE, SIZE), np.uint8))


HEADS = {
    "nothing": ({}, 2, True),
    "num_heads": ({"args": {"num_heads": 4}}, 4, False),
    "timm's model_kwargs": ({"args": {"model": "mine", "model_kwargs": {"num_heads": 4}}}, 4, False),
    "a name of timm": ({"args": {"model": "vit_tiny_patch8_48.tag"}}, 2, False),
    "a name of one's own": ({"args": {"model": "mine"}}, 2, True),
    "MoCo v3's ViT-S, whose heads are 32 wide": ({"arch": "vit_small", "epoch": 300}, 2, True),
    "MoCo v3's ViT-B": ({"arch": "vit_base", "epoch": 300}, 2, False),
}


@pytest.mark.parametrize("source", HEADS)
def test_heads_that_nothing_states_are_assumed_with_a_warning(tmp_path, caplog, source):
    content, heads, assumed = HEADS[source]
    path = saved(tmp_path, {"state_dict": TimmViT().state_dict(), **content})
    assert load_checkpoint(path).config.heads == heads
    warning = f"{path}: nothing states the number of attention heads, and 2 of 64 channels each are assumed"
    assert [line.startswith(warning) for line in caplog.messages] == [True] * assumed


def test_heads_of_a_module_are_compared_not_assumed(caplog):
    load_checkpoint(filled(TimmViT()))
    assert caplog.messages == []


STATED = {
    "the pooling 'avg' and the norm 'norm', expected 'token'": ("timm ViT", {"global_pool": "avg"}),
    "the pooling 'max' and the norm 'norm', expected 'token'": ("timm ViT", {"model_args": {"global_pool": "max"}}),
    "the pooling 'token' and the norm 'fc_norm', expected 'avg'": ("timm ViT, mean-pooled", {"global_pool": "token"}),
    "the activation 'quick_gelu', expected 'gelu'": ("timm ViT", {"model_args": {"act_layer": "quick_gelu"}}),
    "rotary position embeddings .'vit_base_patch16_rope_ape_224.naver_in1k'": (
        "DeiT III", {"architecture": "vit_base_patch16_rope_ape_224.naver_in1k"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("message", STATED)
def test_an_unsupported_setting_in_a_config_is_refused(tmp_path, message):
    source, config = STATED[message]
    with pytest.raises(BadFileError, match=message):
        load_checkpoint(hub(tmp_path, {"config.json": {"architecture": "vit_tiny_patch8_48"} | config}, source))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gp": "avg"}, "the pooling 'avg'"),
        ({"model": "rope_axial_ape_deit_small_patch16_LS"}, "rotary position"),
        ({"gp": None, "model_kwargs": {"global_pool": "avg"}}, "the pooling 'avg'"),
        ({"model_kwargs": {"act_layer": "quick_gelu"}}, "the activation 'quick_gelu', expected 'gelu'"),
    ],
)
def test_an_unsupported_setting_of_the_run_is_refused(tmp_path, settings, message):
    content = {"state_dict": filled(SOURCES["timm ViT"]()).state_dict(), "args": argparse.Namespace(**settings)}
    with pytest.raises(BadFileError, match=message):
        load_checkpoint(saved(tmp_path, content))


@pytest.mark.parametrize(
    ("source", "pool"), [("timm ViT", "token"), ("timm ViT, mean-pooled", "avg"), ("DINOv2", ""), ("timm ViT", None)]
)
def test_the_pooling_of_its_norm_may_be_stated(tmp_path, source, pool):
    config = {"architecture": "vit_europe_patch8_48", "global_pool": pool}
    assert load_checkpoint(hub(tmp_path, {"config.json": config}, source)).config.name == "vit_europe_patch8_48"


def test_heads_of_a_timm_config_are_read(tmp_path):
    config = {"architecture": "vit_tiny_patch8_48", "model_args": {"num_heads": 4, "qkv_bias": True}}
    assert load_checkpoint(hub(tmp_path, {"config.json": config}, "timm ViT")).config.heads == 4


def test_saved_again_at_a_published_size_it_keeps_its_name_and_has_no_imagenet_classes(tmp_path):
    config = dataclasses.replace(ZOO["evo_deit_tiny_patch16_224"], name="vit_mine", pooling="class")
    save_checkpoint(random_model(config), tmp_path / "d.pth")
    again = load_checkpoint(tmp_path / "d.pth")
    assert again.config == config
    assert again.info.class_names == ()
