"""`evodeploy.export` as called by a program; tests/cli covers what it shares with the command."""

from __future__ import annotations

import json
import logging
import shutil

import numpy as np
import pytest
from torch import nn

import evodeploy
from evodeploy.errors import UsageError


def test_an_export_is_a_record(small_checkpoint, tmp_path, logged, caplog):
    caplog.set_level(logging.INFO)  # the same as with basicConfig
    shutil.copy(small_checkpoint, tmp_path / "a.pth")
    done = evodeploy.export(str(tmp_path / "a.pth"), keep_ratio=(0.5, 0.25), mean=0.5, std=(0.25,) * 3, batch=2)
    assert done.path == tmp_path / "a.onnx"
    assert done.info.keep_ratios == (0.5, 0.25)
    assert (done.info.preprocessing.mean, done.info.preprocessing.std) == ((0.5,) * 3, (0.25,) * 3)
    assert str(done).startswith(f"{done.path}  {done.size / 1e6:.1f} MB  ")
    assert str(done).endswith(f"all {len(done.checks)} checks passed")
    facts = json.loads(json.dumps(done.to_dict()))
    assert facts["elastic"] == []
    assert {record.name.partition(".")[0] for record in caplog.records} == {"evodeploy"}
    assert (facts["bytes"], facts["verified"]) == (done.path.stat().st_size, True)
    assert len(facts["checks"]) == len(done.checks) == sum("ok   batch 2" in line for line in logged) > 0
    with pytest.raises(UsageError, match="already exists"):
        evodeploy.export(tmp_path / "a.pth")


def test_the_checks_of_a_converted_export_are_named_as_those_of_its_fp32_graph(small_checkpoint, tmp_path):
    done = evodeploy.export(small_checkpoint, tmp_path / "a.onnx", precision="bf16")
    assert str(done).endswith(f"all {len(done.checks)} checks of its FP32 graph passed")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"precision": "fp4"}, "precision is 'fp4', expected one of fp32, fp16, bf16, int8, fp8"),
        ({"selection": "head"}, "selection is 'head', expected one of stage, layer"),
        ({"input_format": "uint16"}, "input_format is 'uint16', expected one of float32, uint8, uint8-nchw"),
        ({"precision": "int8"}, "--int8 is calibrated on images like those it will see"),
        ({"precision": "bf16", "opset": 20}, "--bf16 needs opset 22 or higher"),
        ({"precision": "fp8", "opset": 18, "images": "."}, "--fp8 needs opset 19 or higher"),
        ({"precision": "fp16", "images": ".", "verify": False}, "--images is for"),
    ],
)
def test_refuses_arguments_that_do_not_fit(small_checkpoint, tmp_path, arguments, message):
    with pytest.raises(UsageError, match=message):
        evodeploy.export(small_checkpoint, tmp_path / "x.onnx", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_module_needs_a_name_for_its_output():
    with pytest.raises(UsageError, match="its export needs a name: give the output, such as 'model.onnx'"):
        evodeploy.export(nn.Linear(1, 1))


def test_numbers_of_numpy_are_numbers(small_checkpoint, tmp_path):
    numbers = {"keep_ratio": np.float32(0.5), "stages": [np.int64(2), np.int64(4)], "top_k": np.int64(3)}
    info = evodeploy.export(small_checkpoint, tmp_path / "x.onnx", verify=False, **numbers).info
    assert (info.keep_ratios, info.stages, info.top_k) == ((0.5, 0.5), (2, 4), 3)


def test_an_image_size_without_a_patch_is_refused(small_checkpoint, tmp_path):
    with pytest.raises(UsageError, match="image size -8 a positive multiple of the patch size 8"):
        evodeploy.export(small_checkpoint, tmp_path / "x.onnx", image_size=-8)
