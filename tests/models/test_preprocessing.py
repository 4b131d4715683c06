from __future__ import annotations

import dataclasses
import json

import pytest

from evodeploy.specs import ModelInfo, Preprocessing

INFO = ModelInfo("fake", 224, 4, 3, "stage", (0.5,))


def old(image_size, **preprocessing):
    """The metadata that the first version wrote."""
    values = dataclasses.asdict(dataclasses.replace(INFO, image_size=image_size))
    plain = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "interpolation": "bicubic"}
    return json.dumps(values | {"preprocessing": plain | preprocessing})


@pytest.mark.parametrize("image_size", [32, 64, 209, 224, 228, 384, 518])
@pytest.mark.parametrize("ratio", [256 / 224, 1 / 0.9, 1 / 0.95, 1.0, 248 / 224, 25 / 17])
def test_old_files_keep_the_pixels_that_they_meant(image_size, ratio):
    read = ModelInfo.from_json(old(image_size, resize_ratio=ratio)).preprocessing
    assert read.resized(image_size) == int(ratio * image_size)
    assert (read.crop_mode, read.rounding, read.assumed) == ("center", "timm", ())


def test_the_published_ratio_of_an_old_file_is_todays_default():
    assert ModelInfo.from_json(old(224, resize_ratio=256 / 224)).preprocessing == Preprocessing()


def test_every_field_travels_in_the_metadata():
    how = Preprocessing((0.5,) * 3, (0.25,) * 3, "lanczos", 0.9, "squash", "hugging-face", ("mean", "std"))
    read = ModelInfo.from_json(dataclasses.replace(INFO, preprocessing=how).to_json()).preprocessing
    assert dataclasses.astuple(read) == dataclasses.astuple(how)


def test_a_field_that_a_later_version_added_is_refused_since_its_meaning_is_not_known():
    values = json.loads(INFO.to_json())
    values["preprocessing"]["mirror"] = True
    with pytest.raises(ValueError, match="mirror"):
        ModelInfo.from_json(json.dumps(values))


def test_shares_round_as_timm_and_as_hugging_face_do():
    timm, hugging_face = Preprocessing(crop_pct=0.9), Preprocessing(crop_pct=224 / 248, rounding="hugging-face")
    assert [timm.resized(224), hugging_face.resized(224)] == [248, 248]
    assert [timm.offset(227, 224), hugging_face.offset(227, 224)] == [2, 1]
