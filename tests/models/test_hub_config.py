from __future__ import annotations

import json
import os

import pytest

from evodeploy.errors import BadFileError, UsageError
from evodeploy.models.hub_config import hints_near
from evodeploy.models.preprocessing import resolved

TIMM = {"architecture": "vit_tiny", "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}


@pytest.fixture
def hints_of(tmp_path):
    """A function that writes a hub's files and reads the hints for a checkpoint in the same folder."""

    def read(config, processor=None):
        for name, content in (("config.json", config), ("preprocessor_config.json", processor or {})):
            text = content if isinstance(content, str) else json.dumps(content)
            (tmp_path / name).write_text(text)
        return hints_near(tmp_path / "model.safetensors")

    return read


@pytest.mark.parametrize(
    ("config", "processor", "sentence"),
    [
        ({"num_attention_heads": 0.5}, None, "config.json: num_attention_heads is 0.5, expected a whole number"),
        ({"num_attention_heads": True}, None, "num_attention_heads is true, expected"),
        ({"num_attention_heads": 10**6}, None, "num_attention_heads is 1000000, expected"),
        ({"image_size": [16, 64]}, None, 'image_size is "16 x 64", expected a square'),
        (TIMM | {"model_args": {"img_size": [16, 64]}}, None, 'model_args.img_size is "16 x 64", expected a square'),
        ({"layer_norm_eps": 0}, None, "layer_norm_eps is 0, expected a number above 0"),
        ({"layer_norm_eps": "1e-6"}, None, 'layer_norm_eps is "1e-6", expected'),
        ({"hidden_act": None}, None, "hidden_act is null, expected text"),
        ({"id2label": {"0": 0.5}}, None, "id2label.0 is 0.5, expected text"),
        ({"id2label": ["ant"]}, None, "id2label is a list of 1, expected an object"),
        ({"id2label": {"0": "x" * 301}}, None, "id2label.0 is .*, expected text of 0 to 300 characters"),
        ([], None, "config.json: it is a list of 0, expected an object"),
        ("{" * 100_000, None, "config.json is not readable JSON"),
        ('{"id2label": ' + "[" * 100_000, None, "values nested more than 32 deep"),
        ('{"id2label": {"0": "\\ud800"}}', None, "surrogates not allowed"),
        ({"architecture": 3}, None, "architecture is 3, expected text"),
        (TIMM | {"label_names": [True]}, None, r"label_names\[0\] is true, expected text"),
        (TIMM | {"label_names": {"0": True}}, None, r"label_names.0 is true, expected text"),
        (TIMM | {"model_args": {"num_heads": "4"}}, None, 'model_args.num_heads is "4", expected a whole number'),
        (TIMM | {"global_pool": True}, None, "global_pool is true, expected text"),
        (TIMM | {"pretrained_cfg": "x"}, None, 'pretrained_cfg is "x", expected an object'),
        (TIMM | {"pretrained_cfg": {"mean": "0.5"}}, None, 'pretrained_cfg.mean is "0.5", expected a list'),
        (TIMM | {"pretrained_cfg": {"crop_pct": "0.9"}}, None, 'pretrained_cfg.crop_pct is "0.9", expected a number'),
        ({}, {"image_mean": [0.5, None, 0.5]}, r"preprocessor_config.json: image_mean\[1\] is null, expected a number"),
        ({}, {"image_std": 0.5}, "image_std is 0.5, expected a list"),
        ({}, {"rescale_factor": "1/255"}, "rescale_factor is .*, expected a number"),
    ],
)
def test_an_invalid_hub_file_is_refused_with_file_field_value_and_expectation(hints_of, config, processor, sentence):
    with pytest.raises(BadFileError, match=sentence) as raised:
        hints_of(config, processor)
    assert str(raised.value).isprintable()


def test_valid_descriptions_are_read(hints_of):
    hints = hints_of(
        {"num_attention_heads": 3, "layer_norm_eps": 1e-6, "id2label": {"1": "bee", "0": "ant"}, "more": [[]]}
    )
    assert (hints.num_heads, hints.norm_eps, hints.class_names) == (3, 1e-6, ("ant", "bee"))
    assert hints_of({"id2label": {"0": "ant", "7": "bee"}}).class_names == ()
    hints = hints_of(TIMM | {"label_names": ["ant", "bee"]})
    assert (hints.model, hints.class_names) == ("vit_tiny", ("ant", "bee"))


def test_whole_numbers_are_labels(hints_of):
    assert hints_of({"id2label": {"0": 7, "1": 1}}).class_names == ("7", "1")
    assert hints_of(TIMM | {"label_names": [0, "one"]}).class_names == ("0", "one")
    assert hints_of(TIMM | {"label_names": {"1": "one", "0": 0}}).class_names == ("0", "one")
    assert hints_of(TIMM | {"label_names": {"1": "one", "7": "seven"}}).class_names == ()


def test_a_pipe_in_place_of_a_configuration_is_refused_without_waiting_for_it(tmp_path):
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(UsageError, match=r"config\.json is a pipe"):
        hints_near(tmp_path / "model.safetensors")


def test_an_unsupported_size_is_shown_short_and_clean(hints_of):
    hints = hints_of({}, {"image_mean": [0.5] * 3, "size": {"\x1b[2J" * 500: 3}})
    with pytest.raises(
        BadFileError, match=r"crop_mode is size \{'.*… in preprocessor_config.json, expected one of center"
    ) as raised:
        resolved(hints.stated)
    assert str(raised.value).isprintable() and len(str(raised.value)) < 500
    hints = hints_of({}, {"image_mean": [0.5] * 3, "resample": "\x1b[2J"})
    with pytest.raises(BadFileError, match=r"interpolation is \\x1b\[2J in"):
        resolved(hints.stated)
