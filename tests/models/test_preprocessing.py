from __future__ import annotations

import argparse
import dataclasses
import json

import numpy as np
import pytest
import torch

from evodeploy.errors import BadFileError, UsageError
from evodeploy.models.checkpoint import load_checkpoint, load_checkpoint_like
from evodeploy.models.class_names import read_class_names
from evodeploy.models.preprocessing import Stated, resolved, stated_by_options
from evodeploy.models.saving import save_checkpoint
from evodeploy.spec_rules import read_model_info
from evodeploy.specs import ModelInfo, Preprocessing

INFO = ModelInfo("fake", 224, 4, 3, "stage", (0.5,))


def old(image_size, **preprocessing):
    """Return metadata in the format of the first version."""
    values = dataclasses.asdict(dataclasses.replace(INFO, image_size=image_size))
    plain = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "interpolation": "bicubic"}
    return json.dumps(values | {"preprocessing": plain | preprocessing})


@pytest.mark.parametrize("image_size", [32, 64, 209, 224, 228, 384, 518])
@pytest.mark.parametrize("ratio", [256 / 224, 1 / 0.9, 1 / 0.95, 1.0, 248 / 224, 25 / 17, 99 / 64])
def test_old_files_keep_the_pixels_that_they_meant(image_size, ratio):
    read = read_model_info(old(image_size, resize_ratio=ratio)).preprocessing
    assert read.resized(image_size) == int(ratio * image_size)
    assert (read.crop_mode, read.rounding, read.assumed) == ("center", "timm", ())


def test_the_published_ratio_of_an_old_file_is_todays_default():
    assert read_model_info(old(224, resize_ratio=256 / 224)).preprocessing == Preprocessing()


def test_an_old_file_keeps_the_crop_share_that_it_states():
    assert read_model_info(old(224, resize_ratio=1 / 0.9)).preprocessing.crop_pct == 0.9


def test_every_field_travels_in_the_metadata():
    how = Preprocessing((0.5,) * 3, (0.25,) * 3, "lanczos", 0.9, "squash", "hugging-face", ("mean", "std"))
    read = read_model_info(dataclasses.replace(INFO, preprocessing=how).to_json()).preprocessing
    assert dataclasses.astuple(read) == dataclasses.astuple(how)


def test_a_field_that_a_later_version_added_is_refused_since_its_meaning_is_not_known():
    values = json.loads(INFO.to_json())
    values["preprocessing"]["mirror"] = True
    with pytest.raises(ValueError, match="mirror"):
        read_model_info(json.dumps(values))


def test_shares_round_as_timm_and_as_hugging_face_do():
    timm, hugging_face = Preprocessing(crop_pct=0.9), Preprocessing(crop_pct=224 / 248, rounding="hugging-face")
    assert [timm.resized(224), hugging_face.resized(224)] == [248, 248]
    assert [timm.offset(227, 224), hugging_face.offset(227, 224)] == [2, 1]


@pytest.fixture
def saved(tmp_path, small_state):
    """A function that writes the small network's tensors with other content, and reads the preprocessing."""

    def run(name="c.pth", files=None, **content):
        for file, values in (files or {}).items():
            (tmp_path / file).write_text(json.dumps(values))
        torch.save({"model": small_state, **content}, tmp_path / name)
        return load_checkpoint(tmp_path / name).info.preprocessing

    return run


TIMM = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "crop_pct": 0.9, "interpolation": "bilinear"}
EVERY = ("mean", "std", "interpolation", "crop_pct", "crop_mode")


def test_what_no_source_states_is_imagenets_and_is_called_assumed(saved):
    how = saved()
    assert (how, how.assumed) == (Preprocessing(), EVERY)


@pytest.mark.parametrize("key", ["args", "cfg"])
@pytest.mark.parametrize("kind", [lambda values: argparse.Namespace(**values), dict])
def test_the_settings_of_timms_training_are_read(saved, kind, key):
    how = saved(**{key: kind(TIMM | {"crop_mode": "squash", "img_size": None})})
    assert how == Preprocessing((0.5,) * 3, (0.25,) * 3, "bilinear", 0.9, "squash")
    assert how.assumed == ()


def test_what_timms_training_leaves_to_the_model_is_assumed(saved):
    how = saved(args=argparse.Namespace(mean=[0.5], std=None, crop_pct=None, interpolation="", crop_mode=None))
    assert (how, how.assumed) == (Preprocessing((0.5,) * 3), EVERY[1:])


DEIT = {"input_size": 224, "data_set": "IMNET"}


@pytest.mark.parametrize(
    ("settings", "crop_pct"),
    [(DEIT, 0.875), (DEIT | {"eval_crop_ratio": 1.0}, 1.0), ({"input_size": 64, "keep_ratio": [0.5, 0.5]}, 0.875)],
)
def test_the_settings_of_deits_and_evo_vits_training_mean_its_evaluation(saved, settings, crop_pct):
    how = saved(args=argparse.Namespace(**settings))
    assert (how, how.assumed) == (Preprocessing(crop_pct=crop_pct), ())


def test_deits_code_does_not_resize_small_images(saved):
    how = saved(args=argparse.Namespace(input_size=32, data_set="CIFAR"))
    assert how.assumed == ("interpolation", "crop_pct", "crop_mode")


def test_settings_without_preprocessing_leave_every_field_assumed(saved):
    assert saved(args=argparse.Namespace(input_size=224, lr=0.1)).assumed == EVERY


def timm_config(**values):
    return {"config.json": {"architecture": "evo_deit_test", "pretrained_cfg": values}}


def test_a_config_of_timm_comes_before_settings_and_its_own_defaults_fill_it(saved):
    files = timm_config(mean=[0.1, 0.2, 0.3], crop_mode="squash")
    how = saved("pytorch_model.bin", files, args=argparse.Namespace(**TIMM))
    assert how == Preprocessing((0.1, 0.2, 0.3), crop_mode="squash")
    assert how.assumed == ()


def test_a_config_of_timm_that_says_nothing_leaves_it_to_the_settings(saved):
    how = saved("pytorch_model.bin", timm_config(), args=argparse.Namespace(**TIMM))
    assert (how.mean, how.assumed) == ((0.5,) * 3, ("crop_mode",))


HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 3}


@pytest.mark.parametrize(
    ("values", "crop_mode", "resized"),
    [
        ({"size": {"height": 64, "width": 64}}, "squash", 64),
        ({"size": 64, "image_processor_type": "ViTImageProcessor", "do_center_crop": False}, "squash", 64),
        ({"size": 72, "crop_size": 64, "feature_extractor_type": "DeiTFeatureExtractor"}, "squash", 72),
        ({"size": 72, "crop_size": 64, "image_processor_type": "BitImageProcessor"}, "center", 72),
        ({"size": {"shortest_edge": 73}, "crop_size": {"height": 64, "width": 64}}, "center", 73),
    ],
)
def test_the_sizes_of_a_hugging_face_processor(saved, values, crop_mode, resized):
    how = saved("pytorch_model.bin", {"config.json": {}, "preprocessor_config.json": HALF | values})
    assert (how.crop_mode, how.resized(64), how.rounding, how.assumed) == (crop_mode, resized, "hugging-face", ())


@pytest.mark.parametrize(
    ("values", "mean", "std"),
    [
        ({"do_normalize": False}, 0.0, 1.0),
        ({"rescale_factor": 1 / 127.5}, 0.25, 0.25),
        ({"do_rescale": False, "do_normalize": False}, 0.0, 1 / 255),
    ],
)
def test_a_processor_that_scales_or_normalises_otherwise_is_folded_into_mean_and_deviation(saved, values, mean, std):
    files = {"config.json": {}, "preprocessor_config.json": HALF | {"size": {"height": 64, "width": 64}} | values}
    how = saved("pytorch_model.bin", files)
    np.testing.assert_allclose((how.mean, how.std), ((mean,) * 3, (std,) * 3), rtol=1e-12)


REFUSED = {
    "crop_mode is border in timm's config.json, expected one of center, squash: state it with --crop-mode": timm_config(
        mean=[0.5] * 3, crop_mode="border"
    ),
    "crop_mode is crop_border_pixels in timm's": timm_config(mean=[0.5] * 3, crop_border_pixels=4),
    "interpolation is random in timm's .* lanczos: state it with --interpolation": timm_config(interpolation="random"),
    "crop_pct is 1.1 in timm's config.json, expected 0.25 to 1": timm_config(crop_pct=1.1),
    "std is 0.5, 0, 0.5 in timm's config.json, expected three numbers from 0.0001": timm_config(std=[0.5, 0, 0.5]),
    "the number NaN, expected finite ones": timm_config(mean=[float("nan")] * 3),
    "crop_mode is do_resize false in preprocessor_config.json": {"do_resize": False},
    "crop_mode is do_pad in": {"do_pad": True},
    "crop_mode is size {'shortest_edge': 64} without a crop": {"size": {"shortest_edge": 64}},
    "crop_mode is size {'height': 64, 'width': 32}": {"size": {"height": 64, "width": 32}},
    "crop_mode is size {'longest_edge': 64}": {"size": {"longest_edge": 64}},
    "crop_mode is crop_size {'height': 64, 'width': 32}": {
        "size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 32},
    },
    "interpolation is filter 5 in preprocessor_config.json": {"resample": 5},
    "crop_pct is 2 in preprocessor_config.json": {"size": {"shortest_edge": 32}, "crop_size": 64},
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_computed_is_refused_by_name(saved, message):
    files = REFUSED[message]
    with pytest.raises(BadFileError, match=message):
        saved(
            "pytorch_model.bin",
            files if "config.json" in files else {"config.json": {}, "preprocessor_config.json": files},
        )


def test_an_option_comes_before_what_cannot_be_computed():
    border = Stated("timm's config.json", mean=(0.5,) * 3, crop_mode="border")
    how = resolved([stated_by_options(None, None, None, None, "squash"), border])
    assert (how.crop_mode, how.mean, how.assumed) == ("squash", (0.5,) * 3, ("std", "interpolation", "crop_pct"))


def test_a_bad_option_is_a_fault_of_the_command():
    with pytest.raises(UsageError, match="crop_pct is 0 in the arguments, expected 0.25 to 1"):
        resolved([stated_by_options(None, None, None, 0.0, None)])


@pytest.mark.parametrize("assumed", [(), EVERY, ("mean", "crop_mode")])
def test_a_saved_checkpoint_keeps_preprocessing_and_class_names(tmp_path, small, assumed):
    how = Preprocessing((0.5,) * 3, (0.25,) * 3, "lanczos", 64 / 73, "squash", "hugging-face")
    usual = {name: getattr(Preprocessing(), name) for name in assumed}
    how = dataclasses.replace(how, **usual, assumed=assumed, rounding="timm" if "crop_pct" in assumed else how.rounding)
    names = tuple("abcdefghij")
    info = dataclasses.replace(small.info, preprocessing=how, class_names=names)
    save_checkpoint(dataclasses.replace(small, info=info), tmp_path / "c.pth")
    read = load_checkpoint(tmp_path / "c.pth").info
    assert dataclasses.astuple(read.preprocessing) == dataclasses.astuple(how)
    assert read.class_names == names


def test_a_checkpoint_run_like_an_artefact_takes_what_it_does_not_state_from_it(tmp_path, small_state):
    torch.save({"model": small_state, "args": argparse.Namespace(crop_pct=None, mean=[0.5])}, tmp_path / "c.pth")
    own = dataclasses.replace(load_checkpoint(tmp_path / "c.pth").info, source_sha256="")
    other = Preprocessing((0.1,) * 3, (0.25,) * 3, "bilinear", 0.9, "squash", "hugging-face", ("interpolation",))
    read = load_checkpoint_like(tmp_path / "c.pth", dataclasses.replace(own, preprocessing=other)).info.preprocessing
    assert read == dataclasses.replace(other, mean=(0.5,) * 3)
    assert read.assumed == ("interpolation",)


def test_a_checkpoint_run_like_its_own_export_takes_what_options_stated(tmp_path, small_state):
    settings = argparse.Namespace(**TIMM, crop_mode="center", class_names=list("abcdefghij"))
    torch.save({"model": small_state, "args": settings}, tmp_path / "c.pth")
    own = load_checkpoint(tmp_path / "c.pth").info
    stated, names = Preprocessing((0.1,) * 3, (0.2,) * 3, "lanczos", 0.95, "squash"), tuple("ABCDEFGHIJ")
    export = dataclasses.replace(own, preprocessing=stated, class_names=names)
    read = load_checkpoint_like(tmp_path / "c.pth", export).info
    assert (read.preprocessing, read.class_names) == (stated, names)
    read = load_checkpoint_like(tmp_path / "c.pth", dataclasses.replace(export, source_sha256="f" * 64)).info
    assert (read.preprocessing, read.class_names) == (own.preprocessing, own.class_names)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("names.txt", "cat\ndog \nowl\n\n"),
        ("names.json", '["cat", "dog", "owl"]'),
        ("names.json", '{"1": "dog", "0": "cat", "2": "owl"}'),
        ("names.json", '{"0": ["n1", "cat"], "1": ["n2", "dog"], "2": ["n3", "owl"]}'),
    ],
)
def test_class_names_are_read(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert read_class_names(tmp_path / name) == ("cat", "dog", "owl")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("names.txt", b"cat\n\nowl\n", "line 2 is empty, expected one name a line"),
        ("names.txt", b"\n", "it is empty"),
        ("names.txt", b"\xff\xfe\x00", "not a readable file of class names"),
        ("names.txt", b"x" * 301, "has a class name of 301 characters, expected 300 at most"),
        ("names.json", b"[1, 2]", "expected a list of names"),
        ("names.json", b'{"0": "cat", "2": "owl"}', "from 0 without a gap"),
        ("names.json", b"[" * 100_000, "not a readable file of class names"),
    ],
)
def test_files_without_class_names_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadFileError, match=message):
        read_class_names(tmp_path / name)
