"""The finished kernels of TensorRT for RTX, and the folder that keeps them."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

from evodeploy.engines.tensorrt.rtx import configure
from evodeploy.files import replacing
from evodeploy.locks import LOCK, locked
from evodeploy.specs import EngineOptions


@pytest.fixture
def saving(tmp_path):
    """What keeps the kernels of a plan in tmp_path when its engine is closed, and what TensorRT then gives."""
    config = MagicMock()
    plan = SimpleNamespace(flavour=MagicMock(), runtime_config=lambda: config, config=None, kernels=None)
    save = configure(plan, "f" * 64, "sm89", EngineOptions(cache=tmp_path))
    kernels = config.create_runtime_cache.return_value.serialize
    kernels.return_value = b"finished"
    return save, kernels, tmp_path / f"{'f' * 16}-sm89.rtx-cache"


def test_kernels_are_kept(saving):
    save, _, path = saving
    save()
    assert path.read_bytes() == b"finished"


def test_an_engine_closes_though_another_process_keeps_its_kernels_meanwhile(saving, caplog):
    save, _, path = saving
    with locked(path.with_name(f".{path.name}.{LOCK}")), caplog.at_level(logging.WARNING, "evodeploy"):
        save()
    assert not path.exists()
    (line,) = caplog.messages
    assert line.startswith("the compiled kernels cannot be kept: another run is writing")


def test_an_engine_closes_though_tensorrt_gives_no_kernels(saving, caplog):
    save, kernels, path = saving
    with replacing(path) as draft:
        draft.write_bytes(b"before")
    kernels.return_value = None
    with caplog.at_level(logging.WARNING, "evodeploy"):
        save()
    assert path.read_bytes() == b"before"
    assert caplog.messages == ["the compiled kernels cannot be kept: TensorRT gave no kernels"]
