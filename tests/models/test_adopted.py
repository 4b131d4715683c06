"""Modules in memory, in the forms of timm and transformers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from vit_sources import CLASSES, SIZE, SOURCES, HuggingFace, TimmViT, filled

import evodeploy
from evodeploy.errors import BadFileError, UsageError
from evodeploy.models.checkpoint import load_checkpoint
from evodeploy.models.random_weights import random_model
from evodeploy.models.zoo import named

IMAGES = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


class Config:
    """A stand-in for `module.config` of transformers."""

    def __init__(self, **values):
        self.values = values

    def to_dict(self):
        return self.values


@pytest.mark.parametrize("kind", SOURCES)
def test_takes_over_every_kind_of_plain_vit(kind):
    module = filled(SOURCES[kind]())
    module.num_heads = 2  # not the number that its width implies
    loaded = load_checkpoint(module)
    assert loaded.info.source == loaded.info.source_sha256 == ""
    with torch.inference_mode():
        torch.testing.assert_close(loaded.module(IMAGES), module(IMAGES), rtol=1e-4, atol=1e-4)


def test_the_module_is_left_as_it_was():
    module = filled(TimmViT()).train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    load_checkpoint(module)
    assert module.training
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


def test_reads_what_timm_says():
    module = filled(TimmViT())
    module.pretrained_cfg = {
        "architecture": "vit_small_patch8_48", "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25),
        "interpolation": "bicubic", "crop_pct": 0.9, "label_names": [f"kind {i}" for i in range(CLASSES)],
    }  # fmt: skip
    info = load_checkpoint(module).info
    assert (info.model, info.class_names[2]) == ("vit_small_patch8_48", "kind 2")
    assert (info.preprocessing.mean, info.preprocessing.crop_pct) == ((0.5,) * 3, 0.9)
    assert info.preprocessing.assumed == ()


def test_reads_what_transformers_says():
    module = filled(HuggingFace("vit"))
    labels = {index: f"kind {index}" for index in range(CLASSES)}
    module.config = Config(num_attention_heads=2, layer_norm_eps=1e-12, id2label=labels, dtype=torch.float32)
    loaded = load_checkpoint(module)
    assert (loaded.config.heads, loaded.info.class_names[3]) == (2, "kind 3")
    module.config = Config(hidden_act="gelu_new")
    with pytest.raises(BadFileError, match="has the activation 'gelu_new', expected 'gelu'"):
        load_checkpoint(module)


def test_refuses_a_module_that_computes_something_else():
    """Its tensors are those of a plain ViT, and neither a tensor's name nor a configuration shows the difference."""

    class Other(TimmViT):
        def forward(self, images):
            return super().forward(images) * 1.001

    with pytest.raises(UsageError, match=r"the Other cannot be converted exactly.*differ by 1\.0e-03"):
        load_checkpoint(filled(Other()))


def test_refuses_a_module_that_does_not_run():
    class Broken(TimmViT):
        def forward(self, images):
            raise RuntimeError("no such operator")

    with pytest.raises(UsageError, match=r"the Broken does not run on images of 48 x 48 pixels \(no such operator\)"):
        load_checkpoint(filled(Broken()))


@pytest.mark.parametrize("own", [False, True])
def test_refuses_a_module_without_values(own):
    module = random_model(named("evo_deit_tiny_patch16_224")).module if own else filled(TimmViT())
    with pytest.raises(UsageError, match=r"has no plain tensor as cls_token: expected .* nor on the meta device"):
        load_checkpoint(module.to("meta"))


def test_refuses_a_quantized_module():
    """Its state contains objects that are not tensors."""

    class Quantized(TimmViT):
        def get_extra_state(self):
            return torch.qint8

        def set_extra_state(self, state):
            pass

    with pytest.raises(UsageError, match="the Quantized has no plain tensor as _extra_state"):
        load_checkpoint(Quantized())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_takes_over_a_module_of_another_precision(dtype):
    module = filled(TimmViT()).to(dtype)
    loaded = load_checkpoint(module)
    with torch.inference_mode():
        torch.testing.assert_close(loaded.module(IMAGES), module.float()(IMAGES), rtol=1e-4, atol=1e-4)


def test_refuses_what_is_no_vision_transformer():
    with pytest.raises(BadFileError, match="the Sequential is not an Evo-DeiT"):
        load_checkpoint(nn.Sequential(nn.Linear(3, 3)))
    with pytest.raises(UsageError, match="no averaged weights"):
        load_checkpoint(filled(TimmViT()), ema=True)


@pytest.mark.parametrize("name", ["evo_deit_tiny_patch16_224", "EvoLeViT_128S"])
def test_takes_over_a_network_of_its_own(name):
    model = random_model(named(name))
    loaded = load_checkpoint(model.module)
    assert (loaded.config, loaded.trained_to_select) == (model.config, True)
    for tensor, other in zip(model.module.state_dict().values(), loaded.module.state_dict().values(), strict=True):
        assert torch.equal(tensor, other)


def test_predicts_with_a_module():
    """`examples/from_timm.py` exports one, and another test runs it."""
    module = filled(TimmViT())
    picture = np.random.default_rng(0).integers(0, 256, (60, 50, 3), np.uint8)
    with evodeploy.load(module) as dense:
        assert dense.info.dense
        assert dense.predict(picture).label.probability > 0
    with pytest.raises(UsageError, match="the engine 'onnxruntime' does not run a module"):
        evodeploy.load(module, "onnxruntime")
