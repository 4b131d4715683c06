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


def test_variables_that_change_a_result_are_recorded_and_a_key_is_not(monkeypatch):
    given = {"NVIDIA_TF32_OVERRIDE": "0", "NVIDIA_VISIBLE_DEVICES": "all", "OMP_NUM_THREADS": "2"}
    for name, value in {**given, "NVIDIA_API_KEY": "nvapi-secret"}.items():  # NVIDIA's services read that one
        monkeypatch.setenv(name, value)
    recorded = environment(1).variables
    assert given.items() <= recorded.items()
    assert "nvapi-secret" not in recorded.values()
