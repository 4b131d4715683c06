"""A plain vision transformer through the commands: dense unless asked, stages, image size, features, an FP16 engine."""

from __future__ import annotations

import json

import pytest
import torch
from levit_cases import small as small_levit
from PIL import Image
from vit_sources import SOURCES, filled

from evodeploy.errors import UsageError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    torch.save(filled(SOURCES["DINOv2"]()).state_dict(), tmp_path / "dino.pth")
    torch.save(filled(SOURCES["timm ViT"]()).state_dict(), tmp_path / "vit.pth")
    Image.new("RGB", (60, 50), "teal").save(tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_from_a_backbone_to_an_engine_of_another_size(cli, folder):
    code, out, err = cli(
        "export", "dino.pth", "--image-size", "64", "--stages", "1,3,5", "--keep-ratio", "0.5", "--tokens"
    )
    assert code == 0
    assert "all 39 checks passed" in out
    assert err.count("warning: position embeddings trained at 48 px are interpolated for 64 px") == 1
    assert "no classifier, so features are exported" in err
    facts = json.loads(cli("inspect", "dino.onnx", "--json")[1])
    assert (facts["image_size"], facts["pooling"], facts["output"]) == (64, "class", "features")
    assert (facts["stages"], facts["keep_ratios"]) == ([1, 3, 5], [0.5, 0.5, 0.5])
    assert cli("verify", "dino.pth", "dino.onnx")[0] == 0  # the checkpoint takes size and stages from the export
    assert cli("build-engine", "dino.onnx", "--fp16")[0] == 0
    assert json.loads(cli("inspect", "dino.engine", "--json")[1])["pooling"] == "class"
    code, out, err = cli("bench", "--engines", "torch,onnxruntime", "--batch", "2", "--seconds", "0")
    assert code == 0, out + err
    assert "dino.pth" in err
    code, _, err = cli("predict", "dino.onnx", "image.png")
    assert code == 2
    assert "has no classifier: it gives features" in err


def test_a_classifier_as_trained(cli, folder):
    code, out, err = cli("export", "vit.pth")
    assert code == 0
    assert "costs accuracy" not in err
    assert "7 classes, keep ratio 1, 1" in err
    assert "was not trained with selection, so every token is kept" in err
    assert json.loads(cli("inspect", "vit.onnx", "--json")[1])["keep_ratios"] == [1.0, 1.0]
    facts = json.loads(cli("inspect", "vit.pth", "--json")[1])
    assert (facts["trained_to_select"], facts["heads"]) == (False, 2)
    code, out, _ = cli("predict", "vit.onnx", "image.png", "--top", "1")
    assert code == 0
    assert "class " in out


def test_selection_that_was_not_trained_is_warned_of(cli, folder, small_checkpoint):
    from evodeploy.models.checkpoint import load_checkpoint
    from evodeploy.models.random_weights import random_model
    from evodeploy.models.untrained import warning

    code, _, err = cli("-q", "export", "vit.pth", "--keep-ratio", "0.5", "--no-verify")
    assert code == 0
    assert "warning: warning" not in err
    assert err.count("and a keep ratio below 1.0 costs accuracy") == 1
    for part in ("not trained with selection", "96.0 % at", "`evodeploy eval`", "`evodeploy verify`", "regain"):
        assert part in err
    facts = json.loads(cli("inspect", "vit.onnx", "--json")[1])
    assert (facts["keep_ratios"], facts["fast_path"]) == ([0.5, 0.5], "merge")
    resting = warning(load_checkpoint(folder / "vit.pth", keep_ratios=(0.5,), fast_path="rest"))
    assert "76.3 % at 0.5" in resting
    assert "--fast-path merge" in resting
    assert "--fast-path" not in warning(random_model(small_levit()))  # it cannot merge
    code, _, err = cli("export", small_checkpoint, "-o", "small.onnx", "--no-verify")
    assert code == 0
    assert "costs accuracy" not in err
    assert json.loads(cli("inspect", "small.onnx", "--json")[1])["keep_ratios"] == [0.5, 0.5]


def test_a_published_name_does_not_bring_selection(cli, folder):
    from evodeploy.models.checkpoint import load_checkpoint
    from evodeploy.models.random_weights import random_model
    from evodeploy.models.vit_layout import required
    from evodeploy.models.zoo import named

    config = named("evo_deit_tiny_patch16_224")
    state = {name: torch.zeros(shape) for name, shape in required(config).items() if "fc_norm" not in name}
    torch.save(state | {"norm.weight": torch.ones(192), "norm.bias": torch.zeros(192)}, "deit.pth")
    model = load_checkpoint(folder / "deit.pth", model=config.name)
    assert model.info.dense
    assert not model.trained_to_select
    assert random_model(config).trained_to_select


def test_bench_and_visualize_keep_every_token_too(cli, folder):
    from evodeploy.benchmark.row_specs import row_specs_of
    from evodeploy.benchmark.subject import subject_of

    subject = subject_of([folder / "vit.pth"])
    assert "was not trained with selection" in subject.notes[0]
    with row_specs_of(subject, ["torch"], ["fp32"], threads=1) as rows:
        assert [row.role for row in rows] == ["evo"]  # it is its own dense twin
    code, _, err = cli("bench", "vit.pth", "--fast-path", "rest")
    assert (code, "keeps every token, so --fast-path changes nothing: add --keep, such as 0.7" in err) == (2, True)
    assert subject_of([folder / "vit.pth"], keeps=[0.5]).info.fast_path == "merge"
    code, _, err = cli("visualize", "vit.pth", "image.png", "-o", "pictures")
    assert code == 2
    assert "keeps every token" in err
    assert "--keep-ratio 0.5 --tokens" in err


@pytest.mark.parametrize(
    ("options", "keeps", "said"),
    [
        ((), {(1.0,)}, "was not trained with selection: trying 1.0 alone"),
        (("--keep", "1.0,0.5"), {(1.0,), (0.5,)}, "96.0 % at 0.5"),
    ],
)
def test_a_sweep_tries_fewer_tokens_only_where_asked(cli, folder, monkeypatch, options, keeps, said):
    def sweep(request, state):
        assert {candidate.keep for candidate in request.candidates} == keeps
        raise UsageError("that is all to be seen")

    monkeypatch.setattr("evodeploy.sweeper.pipeline.measured", sweep)
    code, _, err = cli("sweep", "vit.pth", "-o", "sweep", "--engines", "onnxruntime", *options)
    assert (code, "that is all to be seen" in err) == (2, True)
    assert said in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--stages", "4,x"), "--stages is '4,x', expected the blocks"),
        (("--stages", "2,4"), "was not trained with selection and keeps every token, so --stages"),
        (("--selection", "layer"), "was not trained with selection and keeps every token, so --stages"),
        (("--fast-path", "rest"), "so --stages, --selection and --fast-path change nothing"),
        (("--stages", "5,2"), "must begin, in order, after block 0 of 6"),
        (("--image-size", "50"), "image size 50 a positive multiple of the patch size 8"),
        (("--image-size", "0"), "--image-size is '0', expected a whole number"),
        (("--stages", "2", "--keep-ratio", "0.5,0.4"), "2 keep ratios given, but .* has 1 selecting stages"),
    ],
)
def test_options_that_do_not_fit(cli, folder, options, message):
    import re

    code, out, err = cli("export", "vit.pth", *options)
    assert (code, out) == (2, "")
    assert re.search(message, err), err


def test_a_file_that_is_read_several_times_is_warned_of_once(cli, folder):
    code, _, err = cli("visualize", "vit.pth", "image.png", "-o", "drawn", "--keep-ratio", "0.5,0.7")
    assert code == 0, err
    assert err.count("nothing states the number of attention heads") == 1
    code, _, err = cli("visualize", "vit.pth", "image.png", "-o", "again", "--keep-ratio", "0.5,0.7")
    assert err.count("nothing states the number of attention heads") == 1  # of each command
