"""Marks for tests that need a newer version of a package, or a processor that multiplies BF16."""

from importlib.metadata import version

import pytest

from evodeploy.machine.cpu import has_bf16

exact_layer_norm = pytest.mark.skipif(
    tuple(map(int, version("onnxruntime").split(".")[:2])) < (1, 30),
    reason="ONNX Runtime before 1.30 loses digits in LayerNormalization, and Python 3.10 has none newer than 1.23",
)

needs_bf16 = pytest.mark.skipif(not has_bf16(), reason="OpenVINO refuses BF16 on a processor that does not multiply it")
