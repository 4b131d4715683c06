"""What older versions of a package do wrong: marks for the tests that need a newer one."""

from importlib.metadata import version

import pytest

exact_layer_norm = pytest.mark.skipif(
    tuple(map(int, version("onnxruntime").split(".")[:2])) < (1, 30),
    reason="ONNX Runtime before 1.30 loses digits in LayerNormalization, and Python 3.10 has none newer than 1.23",
)
