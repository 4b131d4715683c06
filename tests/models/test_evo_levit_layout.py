import dataclasses
import json

import pytest
import torch
from cases import GOLDEN, published
from levit_cases import random_images, small

from evodeploy.errors import BadFileError, UsageError
from evodeploy.models.checkpoint import load_checkpoint
from evodeploy.models.evo_levit_layout import LAYOUT, to_published
from evodeploy.models.layout import Hints
from evodeploy.models.random_weights import random_model
from evodeploy.models.saving import save_checkpoint
from evodeploy.models.zoo import ZOO

KEYS = sorted(path.stem for path in (GOLDEN / "keys").glob("EvoLeViT*.json"))


@pytest.mark.parametrize("model", KEYS)
def test_every_published_name_and_shape_is_known(model):
    keys = json.loads((GOLDEN / "keys" / f"{model}.json").read_text())
    listed = {name: tuple(entry["shape"]) for name, entry in keys.items()}
    named_once = {name: shape for name, shape in listed.items() if not name.startswith("stage_blocks.")}
    config = LAYOUT.infer(named_once, Hints())
    assert config == ZOO[model]
    required, optional = LAYOUT.required(config), LAYOUT.optional(config)
    assert required | optional == named_once
    assert {name.split(".")[0] for name in optional if "num_batches" not in name} == {"head_cls", "head_cls_dist"}
    assert not any("num_batches" in name or name.startswith("head_cls") for name in required)


def test_both_names_of_a_block_or_either_give_the_same_network():
    both = published("EvoLeViT_128S")
    expected = LAYOUT.canonical(both)
    assert not any(name.startswith("stage_blocks.") for name in expected)
    for missing in ("blocks.", "stage_blocks."):
        one = {name: tensor for name, tensor in both.items() if not name.startswith(missing)}
        found = LAYOUT.canonical(one)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_two_names_that_disagree_are_refused_by_name():
    both = published("EvoLeViT_128S")
    name = "stage_blocks.6.m.2.m.qkv.bn.bias"
    both[name] = both[name] + 1e-6
    with pytest.raises(BadFileError, match=r"'blocks\.5\.m1\.m\.qkv\.bn\.bias' and 'stage_blocks\.6\.m\.2\."):
        LAYOUT.canonical(both)


@pytest.mark.parametrize("model", ["EvoLeViT_128S", "EvoLeViT_256"])
def test_published_names_there_and_back(model):
    state = published(model)
    back = to_published(LAYOUT.to_module(LAYOUT.canonical(state)))
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_a_published_network_at_another_image_size_and_class_count():
    config = dataclasses.replace(ZOO["EvoLeViT_192"], image_size=160, num_classes=37)
    found = LAYOUT.infer(LAYOUT.required(config), Hints(model="flowers"))
    assert found == dataclasses.replace(config, name="flowers")


def test_a_published_size_keeps_its_own_name_and_has_no_imagenet_classes(tmp_path):
    config = dataclasses.replace(ZOO["EvoLeViT_128S"], name="birds")
    save_checkpoint(random_model(config), tmp_path / "birds.pth")
    again = load_checkpoint(tmp_path / "birds.pth")
    assert again.config == config
    assert again.info.class_names == ()


def test_a_published_size_keeps_its_own_heads():
    """No tensor shows them: all have the shapes of 4, 6 and 8 heads of 16 channels."""
    config = dataclasses.replace(ZOO["EvoLeViT_128S"], heads=(8, 12, 16), key_width=8)
    assert LAYOUT.required(config) == LAYOUT.required(ZOO["EvoLeViT_128S"])
    assert load_checkpoint(random_model(config).module).config == dataclasses.replace(config, name="evo_levit_custom")


def test_a_custom_network_needs_its_number_of_heads():
    config = small()
    message = LAYOUT.infer(LAYOUT.required(config), Hints(model="small", num_heads=config.heads))
    assert message == config
    for heads in (None, 3, (2, 3), (2, 3, 4), (5, 3, 2)):
        with pytest.raises(UsageError, match="cannot infer the heads"):
            LAYOUT.infer(LAYOUT.required(config), Hints(num_heads=heads))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"poss": (1, 48, 32)}, "'poss' has 48 rows"),
        ({"poss": (48, 32)}, "'poss' is"),
        ({"head.l.weight": None}, "'head.l.weight' is missing"),
        ({"blocks.9.kv.c.weight": (1, 1)}, "at least one in each"),
    ],
)
def test_damaged_shapes_are_refused(changed, message):
    shapes = LAYOUT.required(small()) | changed
    with pytest.raises(BadFileError, match=message):
        LAYOUT.infer({name: shape for name, shape in shapes.items() if shape}, Hints(num_heads=(2, 3, 2)))


def test_only_its_own_family_is_recognised():
    for path in (GOLDEN / "keys").glob("*.json"):
        listed = {name: tuple(entry["shape"]) for name, entry in json.loads(path.read_text()).items()}
        assert LAYOUT.recognises(listed) == path.stem.startswith("EvoLeViT")


def test_a_saved_network_loads_as_it_was(tmp_path):
    model = random_model(small(selection="layer", keep_ratios=(0.5, 1.0, 0.5)))
    save_checkpoint(model, tmp_path / "small.pth")
    loaded = load_checkpoint(tmp_path / "small.pth")
    assert loaded.config == model.config
    images = random_images(model.config).float()
    assert torch.equal(loaded.module(images), model.module(images))
    saved = torch.load(tmp_path / "small.pth", weights_only=False)["model"]
    assert {name.split(".")[0] for name in saved} >= {"blocks", "stage_blocks"}


def test_naming_a_model_of_the_other_family_is_refused(tmp_path):
    save_checkpoint(random_model(small()), tmp_path / "small.pth")
    with pytest.raises(UsageError, match="is of the family Evo-LeViT, but evo_deit_tiny_patch16_224 is of another"):
        load_checkpoint(tmp_path / "small.pth", model="evo_deit_tiny_patch16_224")
