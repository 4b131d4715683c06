"""A small Evo-LeViT and its export, made once for all tests of graphs."""

from __future__ import annotations

import pytest
from levit_cases import small as small_levit

from evodeploy.exporter.to_onnx import onnx_from_model
from evodeploy.models.random_weights import random_model


@pytest.fixture(scope="session")
def levit():
    """An Evo-LeViT with 7 blocks and 2 subsamplings, so 9 attentions."""
    return random_model(small_levit(), seed=1)


@pytest.fixture(scope="session")
def levit_onnx(levit):
    return onnx_from_model(levit)
