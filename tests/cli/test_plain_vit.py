"""A plain vision transformer through the commands: other stages and image size, features, verify, an FP16 engine."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image
from vit_sources import SOURCES, filled


@pytest.fixture
def folder(tmp_path, monkeypatch):
    torch.save(filled(SOURCES["DINOv2"]()).state_dict(), tmp_path / "dino.pth")
    torch.save(filled(SOURCES["timm ViT"]()).state_dict(), tmp_path / "vit.pth")
    Image.new("RGB", (60, 50), "teal").save(tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_from_a_backbone_to_an_engine_of_another_size(cli, folder):
    code, out, err = cli("export", "dino.pth", "--image-size", "64", "--stages", "1,3,5", "--tokens")
    assert code == 0
    assert "all 21 checks passed" in out
    assert err.count("warning: position embeddings trained at 48 px are interpolated for 64 px") == 1
    assert "no classifier, so features are exported" in err
    facts = json.loads(cli("inspect", "dino.onnx", "--json")[1])
    assert (facts["image_size"], facts["pooling"], facts["output"]) == (64, "class", "features")
    assert (facts["stages"], facts["keep_ratios"]) == ([1, 3, 5], [0.5, 0.5, 0.5])
    assert cli("verify", "dino.pth", "dino.onnx")[0] == 0  # the checkpoint takes size and stages from the export
    assert cli("build-engine", "dino.onnx", "--fp16")[0] == 0
    assert json.loads(cli("inspect", "dino.engine", "--json")[1])["pooling"] == "class"
    code, out, err = cli("bench", "--engines", "torch,onnxruntime", "--batch", "2", "--seconds", "0")
    assert code == 0, err
    assert "dino.pth" in err
    code, _, err = cli("predict", "dino.onnx", "image.png")
    assert code == 2
    assert "has no classifier: it gives features" in err


def test_a_classifier_as_trained(cli, folder):
    code, out, err = cli("export", "vit.pth")
    assert code == 0
    assert "warning" not in err
    assert "7 classes, keep ratio 0.5, 0.5" in err
    code, out, _ = cli("predict", "vit.onnx", "image.png", "--top", "1")
    assert code == 0
    assert "class " in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--stages", "4,x"), "--stages is '4,x', expected the blocks"),
        (("--stages", "5,2"), "must begin, in order, after block 0 of 6"),
        (("--image-size", "50"), "image size 50 one of the patch size 8"),
        (("--image-size", "0"), "Invalid value for '--image-size'"),
        (("--stages", "2", "--keep-ratio", "0.5,0.4"), "2 keep ratios given, but .* has 1 selecting stages"),
    ],
)
def test_options_that_do_not_fit(cli, folder, options, message):
    import re

    code, out, err = cli("export", "vit.pth", *options)
    assert (code, out) == (2, "")
    assert re.search(message, err), err
