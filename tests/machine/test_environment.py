"""What of a machine goes into every result."""

from __future__ import annotations

import importlib.metadata

import pytest

from evodeploy.machine.environment import environment


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-cu12", "tensorrt-lean-cu13", "tensorrt-rtx-cu12"])
def test_the_version_of_tensorrt_is_known_by_whatever_extra_it_came(monkeypatch, name):
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda asked: "10.13.0.35" if asked == name else version(asked))
    assert environment(1).packages[name] == "10.13.0.35"
