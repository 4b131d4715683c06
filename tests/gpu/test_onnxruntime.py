"""Part 4: ONNX Runtime's providers on a GPU."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from evodeploy.engines.opener import open_engine

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("name", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_onnxruntime_on_the_gpu(exported, name):
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has no CUDA: pip install onnxruntime-gpu in place of onnxruntime")
    if name == "onnxruntime-tensorrt" and importlib.util.find_spec("tensorrt") is None:
        pytest.skip("TensorRT, whose libraries ONNX Runtime loads, is not installed: TensorRT for RTX is another")
    images = np.random.default_rng(4).standard_normal((4, 3, 64, 64), dtype=np.float32)
    with open_engine(exported[1], name) as gpu, open_engine(exported[1], "onnxruntime") as cpu:
        for batch in (images, images[:1]):
            np.testing.assert_allclose(gpu.run(batch)["logits"], cpu.run(batch)["logits"], atol=2e-2)
