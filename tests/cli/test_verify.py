from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from cases import sharpened
from onnx import TensorProto, numpy_helper
from PIL import Image

from evodeploy.engines.onnxruntime_engine import OnnxRuntimeEngine
from evodeploy.graph.precision import reduced_from_onnx
from evodeploy.models.saving import save_checkpoint
from evodeploy.onnx_files import read_onnx, write_onnx


@pytest.fixture
def folder(tmp_path, monkeypatch, small_checkpoint, small_onnx):
    shutil.copy(small_checkpoint, tmp_path / "ckpt.pth")
    shutil.copy(small_onnx, tmp_path / "ckpt.onnx")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_faithful_export_passes(cli, folder):
    code, out, err = cli("verify", "ckpt.pth", "ckpt.onnx")
    assert code == 0
    assert "ckpt.onnx against ckpt.pth, 32 images" in out
    assert "32 of 32" in out
    assert out.splitlines()[-1] == "PASSED"
    assert "running torch and onnxruntime on 32 images" in err


def test_fp16_is_judged_by_its_own_tolerance(cli, folder):
    write_onnx(reduced_from_onnx(read_onnx(folder / "ckpt.onnx"), "fp16").model, folder / "half.onnx")
    code, out, _ = cli("verify", "ckpt.pth", "half.onnx", "--json", "--random", "64")
    verdict = json.loads(out)
    assert (code, verdict["passed"]) == (0, True)
    assert verdict["logits"]["images"] == 64
    assert verdict["tolerance"]["logits"] == 1e-2
    assert verdict["logits"]["median_cosine"] > 0.9999
    assert all(selection["agreement"] > 0.99 for selection in verdict["selections"])
    assert cli("verify", "ckpt.onnx", "half.onnx", "--rtol", "1e-7")[0] == 1


def in_tf32(proto):
    """Every weight with the ten bits of mantissa that TF32 keeps of a factor."""
    for tensor in proto.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            bits = numpy_helper.to_array(tensor).view(np.uint32)
            rounded = ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))
    return proto


def test_fp32_where_products_may_be_tf32_is_judged_by_its_ten_bits(cli, folder, monkeypatch):
    write_onnx(in_tf32(read_onnx(folder / "ckpt.onnx")), folder / "tf32.onnx")
    code, out, _ = cli("verify", "ckpt.pth", "tf32.onnx")
    assert code == 1
    assert "tolerance of FP32, the lowest precision of the two" in out
    monkeypatch.setattr(OnnxRuntimeEngine, "tf32", property(lambda engine: True, lambda engine, value: None))
    code, out, _ = cli("verify", "ckpt.pth", "tf32.onnx")
    assert code == 0
    reason = (
        "tolerance of FP16, because FP32 products of onnxruntime on cpu may be TF32, which, like FP16, keeps ten bits"
    )
    assert reason in " ".join(out.split())
    code, out, _ = cli("verify", "ckpt.pth", "tf32.onnx", "--json", "--score-tol", "0.1")
    verdict = json.loads(out)
    assert (verdict["tolerance"]["logits"], verdict["tolerance"]["score"]) == (1e-2, 0.1)
    assert verdict["tolerance"]["reason"].endswith("keeps ten bits of a factor, except where stated")


@pytest.mark.parametrize("artefacts", [("ckpt.pth", "ckpt.onnx"), ("ckpt.onnx", "ckpt.pth")])
def test_a_checkpoint_computes_on_the_cpu_where_there_is_a_gpu(cli, folder, monkeypatch, artefacts):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)  # where float32 convolutions are TF32
    code, _, err = cli("verify", *artefacts, "--random", "2")
    assert code == 0, err


def test_other_weights_fail_with_1(cli, folder):
    proto = read_onnx(folder / "ckpt.onnx")
    for tensor in proto.graph.initializer:
        if tensor.name == "network.head.weight":
            tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), tensor.name))
    write_onnx(proto, folder / "other.onnx")
    code, out, err = cli("verify", "ckpt.pth", "other.onnx")
    assert code == 1
    assert out.splitlines()[-1] == "FAILED"
    assert "other.onnx does not agree with ckpt.pth" in err


def test_a_checkpoint_selects_as_its_export_does(cli, folder):
    assert cli("export", "ckpt.pth", "-o", "k.onnx", "--keep-ratio", "0.25", "--selection", "layer", "--tokens")[0] == 0
    code, out, _ = cli("verify", "ckpt.pth", "k.onnx", "--json", "--random", "4")
    assert (code, len(json.loads(out)["selections"])) == (0, 4)
    code, _, err = cli("verify", "k.onnx", "ckpt.onnx")
    assert code == 2
    assert "different models: selection layer and stage" in err


def test_a_folder_of_images(cli, folder):
    rng = np.random.default_rng(0)
    (folder / "images" / "deep").mkdir(parents=True)
    for i, name in enumerate(("a.png", "deep/b.jpg", "notes.txt")):
        path = folder / "images" / name
        if path.suffix == ".txt":
            path.write_text("no image")
        else:
            Image.fromarray(rng.integers(0, 256, (50 + i, 60, 3), dtype=np.uint8)).save(path)
    code, out, _ = cli("verify", "ckpt.pth", "ckpt.onnx", "--images", "images", "--json")
    assert (code, json.loads(out)["logits"]["images"]) == (0, 2)
    (folder / "none").mkdir()
    code, _, err = cli("verify", "ckpt.pth", "ckpt.onnx", "--images", "none")
    assert code == 2
    assert "none holds no images" in err


def test_without_token_outputs_only_logits_are_compared(cli, folder):
    assert cli("export", "ckpt.pth", "-o", "plain.onnx")[0] == 0
    code, out, _ = cli("verify", "ckpt.pth", "plain.onnx")
    assert code == 0
    assert "selections are not compared: export the ONNX with --tokens" in out


def test_a_badly_conditioned_network_is_judged_by_what_float32_loses(cli, folder, small, small_onnx):
    model, proto = sharpened(small, read_onnx(small_onnx), gain=4)
    save_checkpoint(model, folder / "sharp.pth")
    write_onnx(proto, folder / "sharp.onnx")
    for artefacts in (("sharp.pth", "sharp.onnx"), ("sharp.onnx", "sharp.pth")):
        code, out, err = cli("verify", *artefacts, "--json")
        verdict = json.loads(out)
        assert (code, verdict["passed"]) == (0, True), verdict
        assert "to see what float32 itself loses" in err
        assert 1e-4 < verdict["logits"]["limit"] < 1e-1
    assert cli("verify", "sharp.pth", "sharp.onnx", "--rtol", "1e-4")[0] == 1
    for tensor in proto.graph.initializer:
        if tensor.name == "network.head.bias":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + 0.1, tensor.name))
    write_onnx(proto, folder / "wrong.onnx")
    assert cli("verify", "sharp.pth", "wrong.onnx")[0] == 1


@pytest.mark.parametrize("artefacts", [("ckpt.onnx", "nan.onnx"), ("nan.onnx", "ckpt.onnx"), ("nan.onnx", "nan.onnx")])
def test_outputs_that_are_no_numbers_agree_with_nothing(cli, folder, artefacts):
    model = read_onnx(folder / "ckpt.onnx")
    for tensor in model.graph.initializer:
        if tensor.name == "network.head.bias":
            tensor.CopyFrom(numpy_helper.from_array(np.full(10, np.nan, np.float32), tensor.name))
    write_onnx(model, folder / "nan.onnx")
    code, out, _ = cli("verify", *artefacts, "--json")
    assert code == 1
    assert "nan.onnx are not finite (NaN or infinite) for 32 of 32 images" in json.loads(out)["error"]["message"]
