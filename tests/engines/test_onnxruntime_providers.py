"""ONNX Runtime's GPU providers: how they are told our options, and that they are refused where they are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evodeploy.engines.device import cuda_index
from evodeploy.engines.onnxruntime_binding import BoundBatch
from evodeploy.engines.onnxruntime_providers import ON_CPU, ON_CUDA, ON_TENSORRT
from evodeploy.engines.registry import open_engine
from evodeploy.errors import UnavailableError, UsageError
from evodeploy.specs import EngineOptions


def test_options_reach_the_provider_under_its_own_names():
    assert ON_CPU.options(EngineOptions(threads=2)) == {}
    assert ON_CUDA.options(EngineOptions(device="cuda:1", cuda_graph=True)) == {
        "device_id": "1", "enable_cuda_graph": "1",
    }  # fmt: skip
    told = ON_TENSORRT.options(EngineOptions(precision="fp16", cache=Path("kept")))
    assert told["trt_fp16_enable"] == told["trt_engine_cache_enable"] == "1"
    assert told["trt_engine_cache_path"] == "kept"
    with pytest.raises(UsageError, match="fp32 or fp16, got precision bf16"):
        ON_TENSORRT.options(EngineOptions(precision="bf16"))


@pytest.mark.parametrize("name", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_a_provider_that_the_build_lacks_is_refused(small_onnx, name):
    with pytest.raises(UnavailableError, match=r"evodeploy\[gpu\]"):
        open_engine(small_onnx, name)


def test_names_of_devices():
    assert [cuda_index(name) for name in ("cpu", None, "cuda", "cuda:3")] == [None, 0, 0, 3]
    with pytest.raises(UsageError, match="no device is called 'gpu'"):
        cuda_index("gpu")


def test_bound_tensors_give_what_a_plain_run_gives(small_onnx):
    import onnxruntime as ort

    with open_engine(small_onnx, "onnxruntime") as engine:
        images = np.random.default_rng(0).standard_normal((2, 3, 64, 64), dtype=np.float32)
        expected = engine.run(images)
        session = ort.InferenceSession(str(small_onnx), providers=["CPUExecutionProvider"])
        bound = BoundBatch(session, engine.inputs, engine.outputs, 2, "cpu", 0)
        first = bound.run(images)
        bound.run(np.zeros_like(images))
    for name, value in expected.items():
        np.testing.assert_array_equal(first[name], value)
