"""The number of attention heads, which no tensor shows; test_plain_vits.py loads networks with them."""

from __future__ import annotations

import pytest

from evodeploy.errors import UsageError
from evodeploy.models.heads import assumption, heads_of
from evodeploy.models.layout import Hints
from evodeploy.models.zoo import ZOO, EvoDeiTConfig


@pytest.mark.parametrize(
    ("width", "hints", "heads"),
    [
        (192, Hints(), 3),
        (1024, Hints(), 16),
        (1280, Hints(), 16),
        (1408, Hints(), 16),
        (1408, Hints(num_heads=22), 22),
        (64, Hints(model="test_vit.r160_in1k"), 2),
        (64, Hints(), 1),
    ],
)
def test_known_widths_and_names_have_their_own_heads(width, hints, heads):
    assert heads_of(width, hints) == heads


@pytest.mark.parametrize(("width", "hints"), [(96, Hints()), (32, Hints()), (192, Hints(num_heads=5))])
def test_widths_without_a_fitting_number_of_heads_are_refused(width, hints):
    with pytest.raises(UsageError, match=f"heads of width {width} .* expected 'num_heads'"):
        heads_of(width, hints)


def test_heads_of_each_stage_are_refused_for_a_vision_transformer():
    with pytest.raises(UsageError, match=r"states num_heads \[6, 6\], expected one number for a vision transformer"):
        heads_of(384, Hints(num_heads=(6, 6)))


def test_published_checkpoints_imply_their_heads():
    for width in (192, 384, 768, 1024, 1280, 1408):  # files of DeiT, DINO, DINOv2 and MAE contain no name
        assert assumption(EvoDeiTConfig("vit", width, heads_of(width, Hints())), Hints(), selects=False) is None
    for name in ("vit_little_patch16_224.x", "deit3_small_patch16_LS", "dinov2_vits14", "evo_deit_tiny_patch16_384"):
        assert assumption(EvoDeiTConfig(name, 320, 5), Hints(model=name), selects=False) is None
    for config in ZOO.values():
        assert assumption(config, Hints(), selects=True) is None


def test_an_evo_deit_of_a_published_width_may_have_any_name():
    assert assumption(EvoDeiTConfig("mine", 384, 6), Hints(model="mine"), selects=True) is None


@pytest.mark.parametrize(
    ("width", "name", "selects"),
    [(320, None, False), (384, "vit_small", False), (384, "mine", False), (320, "mine", True)],
)
def test_other_heads_are_a_guess(width, name, selects):
    hints = Hints(model=name)
    said = assumption(EvoDeiTConfig("vit", width, heads_of(width, hints)), hints, selects=selects)
    assert f"and {width // 64} of 64 channels each are assumed" in said
