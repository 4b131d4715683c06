"""Part 1: engines are built with every TensorRT installed, verified, and given other weights."""

from __future__ import annotations

import numpy as np
import pytest
from gpu.conftest import building_problem
from onnx import TensorProto, numpy_helper

import evodeploy
from evodeploy.compare.verification import verify
from evodeploy.engines.opener import open_engine
from evodeploy.engines.tensorrt.flavour import load_flavour
from evodeploy.onnx_files import read_onnx, write_onnx

pytestmark = pytest.mark.gpu
IMAGES = np.random.default_rng(4).standard_normal((4, 3, 64, 64), dtype=np.float32)


def test_an_engine_keeps_the_tokens_that_pytorch_keeps(exported, plan, found):
    verdict = verify(exported[0], plan, count=64)
    found |= {
        "largest_error": verdict.logits.max_error, "median_cosine": verdict.logits.median_cosine,
        "top1": verdict.logits.top1, "agreement": [each.agreement for each in verdict.selections],
        "errors": [each.errors for each in verdict.selections],
    }  # fmt: skip
    assert verdict.passed


@pytest.mark.parametrize("how", ["refittable", "strip_plan"])
def test_an_engine_takes_the_weights_of_another_file(exported, runtime, tmp_path, how):
    skip_unless_built(runtime)
    if runtime == "tensorrt" and load_flavour(runtime).version.startswith("11.3.0"):
        pytest.skip("TensorRT 11.3.0 may drop a bias in a refittable engine, so evodeploy refuses it")
    other = retrained(exported[1], tmp_path / "other.onnx")
    options = {"runtime": runtime, "tf32": False, "opt_batch": 4, "max_batch": 4, how: True}
    plan = evodeploy.build(exported[1], tmp_path / "before.engine", **options).path
    full = evodeploy.refit(plan, other, tmp_path / "after.engine").path
    same(full, other)


def test_the_options_of_the_builder(exported, tmp_path, found):
    skip_unless_built("tensorrt")
    options = {
        "profiles": ((1, 1, 1), (2, 4, 4)), "tf32": False, "optimization_level": 2, "workspace": 1 << 30,
        "timing_cache": tmp_path / "timings", "version_compatible": True, "hardware_compatible": "same-capability",
    }  # fmt: skip
    for name in ("first", "second"):  # which finds the timings of the first
        built = evodeploy.build(exported[1], tmp_path / f"{name}.engine", runtime="tensorrt", **options)
        found[f"seconds_{name}"] = built.seconds
        same(built.path, exported[1])


def skip_unless_built(runtime):
    problem = building_problem(runtime, "fp32")
    if problem:
        pytest.skip(problem)


def retrained(source, path):
    """Write `source` with other weights to `path`."""
    model = read_onnx(source)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 1:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(0.9), tensor.name))
    write_onnx(model, path)
    return path


def same(plan, onnx):
    """The engine computes what its ONNX file does, at its smallest batch and at its largest."""
    with open_engine(plan) as engine, open_engine(onnx, "onnxruntime") as reference:
        for images in (IMAGES[:1], IMAGES):
            expected = reference.run(images)["logits"]
            np.testing.assert_allclose(engine.run(images)["logits"], expected, atol=1e-3)
