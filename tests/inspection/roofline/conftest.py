from __future__ import annotations

import pytest

from evodeploy.builder.engine import build_engine
from evodeploy.builder.request import BuildRequest


@pytest.fixture(scope="session")
def small_plan(small_onnx, tmp_path_factory):
    """The small model as an engine of TensorRT for RTX, FP16, for batches of 1 to 8."""
    path = tmp_path_factory.mktemp("roofline") / "small.engine"
    build_engine(BuildRequest(small_onnx, path, "fp16", ((1, 4, 8),), "tensorrt-rtx", ("sm89",)))
    return path


@pytest.fixture(scope="session")
def elastic_plan(small_elastic, tmp_path_factory):
    """The small elastic model likewise, in two profiles: batch 1, and 2 to 8."""
    path = tmp_path_factory.mktemp("roofline") / "elastic.engine"
    build_engine(BuildRequest(small_elastic, path, "fp16", ((1, 1, 1), (2, 4, 8)), "tensorrt-rtx", ("sm89",)))
    return path
