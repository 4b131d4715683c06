from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from graphs import restated
from reference_pages import check_fields

import evodeploy
from evodeploy.compare import verification
from evodeploy.engines.deploy_file import DeployFile
from evodeploy.files import sha256
from evodeploy.onnx_files import info_of, read_onnx

IMAGES = np.random.default_rng(2).integers(0, 256, (3, 70, 80, 3), np.uint8)


def test_a_module_against_its_export_on_arrays(small, small_onnx, capsys, logged):
    verdict = evodeploy.verify(small.module, str(small_onnx), images=IMAGES, engine="onnxruntime")
    assert verdict.passed
    assert verdict.logits.images == 3
    assert str(verdict).splitlines()[0] == "3 images"
    assert str(verdict).splitlines()[-1] == "PASSED"
    assert capsys.readouterr() == ("", "")
    assert logged[-1] == "running torch and onnxruntime on 3 images"


def test_the_command_prints_the_record(cli, small_checkpoint, small_onnx):
    verdict = evodeploy.verify(small_checkpoint, small_onnx, count=2, seed=7, rtol=1e-30)
    assert not verdict.passed
    arguments = ("verify", small_checkpoint, small_onnx, "--random", "2", "--seed", "7", "--rtol", "1e-30")
    code, out, _ = cli(*arguments, "--json")
    assert (code, json.loads(out)) == (1, json.loads(json.dumps(verdict.to_dict())))
    check_fields("Verification", verdict.to_dict())
    code, out, _ = cli(*arguments)
    assert (code, out) == (1, f"{small_onnx} against {small_checkpoint}, {verdict}\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "count is 0"),
        ({"seed": -1}, "seed -1, expected .* 0 or more"),
        ({"rtol": -1}, "rtol is -1, expected 0 or more"),
        ({"score_tolerance": float("nan")}, "score_tolerance is nan"),
        ({"images": []}, "no images"),
    ],
)
def test_options_that_compare_nothing_are_refused(small_onnx, options, message):
    with pytest.raises(evodeploy.UsageError, match=message):
        evodeploy.verify(small_onnx, small_onnx, **options)


def test_the_precision_of_a_deploy_file_decides_the_tolerance(small_checkpoint, small_onnx, tmp_path):
    shutil.copy(small_checkpoint, tmp_path / "ckpt.pth")
    deployed = DeployFile(1, "ckpt.pth", sha256(small_checkpoint), "torch", precision="bf16", device="cpu")
    (tmp_path / "deploy.toml").write_text(deployed.to_toml())
    verdict = evodeploy.verify(small_onnx, tmp_path / "deploy.toml", count=2)
    assert verdict.tolerance.reason == "BF16, the lowest precision of the two"
    assert verdict.logits.max_error > 1e-4
    assert verdict.logits.limit == 8e-2


def test_an_elastic_file_agrees_with_a_static_one_where_a_stage_keeps_every_token(
    small_checkpoint, small_elastic, tmp_path
):
    ratios = (1.0, 0.5)
    elastic = restated(small_elastic, tmp_path / "e.onnx", keep_ratios=ratios)
    static = tmp_path / "s.onnx"
    evodeploy.export(small_checkpoint, static, keep_ratio=ratios, tokens=True, verify=False)
    fixed = {"engine": "openvino", "options": evodeploy.EngineOptions(fixed_keep=ratios)}
    for *pair, options in ((static, elastic, {}), (elastic, static, {}), (small_checkpoint, small_elastic, fixed)):
        verdict = evodeploy.verify(*pair, count=4, **options)
        assert verdict.passed
        assert [(each.name, each.identical) for each in verdict.selections] == [("selected_0", 4)]


def test_an_export_of_averaged_weights_is_compared_with_them(small_checkpoint, small_onnx, tmp_path):
    content = torch.load(small_checkpoint, weights_only=False)
    content["model_ema"] = {name: tensor * 1.1 for name, tensor in content["model"].items()}
    torch.save(content, tmp_path / "c.pth")
    average = evodeploy.export(tmp_path / "c.pth", ema=True, tokens=True, verify=False)
    assert average.info.ema
    assert evodeploy.verify(tmp_path / "c.pth", average.path, count=4).passed
    assert evodeploy.verify(tmp_path / "c.pth", small_onnx, count=4).passed
    assert not evodeploy.verify(small_checkpoint, average.path, count=4).passed  # this file has no averaged weights


def test_the_first_ratio_that_fails_is_returned_and_named(small_elastic, monkeypatch):
    real = verification._judged

    def judged(*arguments):
        found = real(*arguments)
        elsewhere = len(arguments) > 7  # the numbers of tokens are the last argument
        return dataclasses.replace(found, logits=dataclasses.replace(found.logits, limit=-1)) if elsewhere else found

    monkeypatch.setattr(verification, "_judged", judged)
    verdict = evodeploy.verify(small_elastic, small_elastic, count=1)
    assert not verdict.passed
    assert str(verdict).splitlines()[-2].endswith("; at 6/6 tokens kept")


def test_elastic_files_with_other_bounds_are_compared_at_the_ratios_that_both_accept(small_elastic, tmp_path, logged):
    stages = info_of(read_onnx(small_elastic)).elastic
    narrow = tuple(dataclasses.replace(stage, low=stage.low + 2, high=stage.high - 1) for stage in stages)
    other = restated(small_elastic, tmp_path / "narrow.onnx", elastic=narrow)
    for pair in ((small_elastic, other), (other, small_elastic)):
        begun = len(logged)
        assert evodeploy.verify(*pair, count=1).passed
        compared = [line.split()[1] for line in logged[begun:] if "tokens kept" in line]
        assert compared[0] == "/".join(str(stage.low) for stage in narrow)
        assert compared[-1] == "/".join(str(stage.high) for stage in narrow)


def test_the_first_engine_is_closed_if_the_second_does_not_open(small_checkpoint, small_onnx, monkeypatch):
    opened = []

    def opens_one(*args, **options):
        if opened:
            raise evodeploy.UnavailableError("no second one")
        opened.append(evodeploy.open_engine(*args, **options))
        return opened[0]

    monkeypatch.setattr(verification, "open_engine", opens_one)
    for reference in (small_onnx, small_checkpoint):
        with pytest.raises(evodeploy.UnavailableError, match="no second one"):
            evodeploy.verify(reference, small_onnx)
        with pytest.raises(evodeploy.UsageError, match="closed"):
            opened.pop().run(np.zeros((1, 3, 64, 64), np.float32))
