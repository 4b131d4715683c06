"""What the driver's answers mean, of a library that is played."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

import pytest

from evodeploy.machine.driver import driver_problem

NO_DEVICE, UNKNOWN, NOT_INITIALIZED = 100, 999, 3


@pytest.mark.parametrize(
    ("started", "count", "problem"),
    [
        (0, 1, None),
        (0, 0, "the NVIDIA driver sees no GPU"),
        (NO_DEVICE, 0, "the NVIDIA driver sees no GPU"),  # what cuInit says where CUDA_VISIBLE_DEVICES is empty
        (UNKNOWN, 0, "the NVIDIA driver does not start (cuInit error 999)"),
    ],
)
def test_why_cuda_does_not_work(monkeypatch, started, count, problem):
    def count_devices(found):
        found._obj.value = count
        return NOT_INITIALIZED if started else 0

    library = SimpleNamespace(cuInit=lambda flags: started, cuDeviceGetCount=count_devices)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    assert driver_problem() == problem
