"""A batch that PyTorch keeps on its device. Here that is the CPU, whose events have no clock: theirs is made up."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from evodeploy.engines import torch_resident
from evodeploy.engines.torch_engine import TorchEngine
from evodeploy.engines.torch_resident import TorchResident
from evodeploy.errors import RuntimeFailedError
from evodeploy.specs import EngineOptions, TensorSpec

IMAGES = np.arange(6, dtype=np.float32).reshape(2, 3)


class Event:
    """Has not happened yet; 40 ms lie between any two; is recorded on the device that is current."""

    current = "another"

    def __init__(self, device, enable_timing):
        assert (device, enable_timing) == ("cpu", True)

    def record(self):
        assert self.current == "cpu"

    def synchronize(self):
        pass

    def elapsed_time(self, end):
        return 40.0

    def query(self):
        return False


@contextlib.contextmanager
def made_current(device):
    before, Event.current = Event.current, device
    try:
        yield
    finally:
        Event.current = before


class Doubling(torch.nn.Module):
    def forward(self, images):
        return (images * 2,)


class Failing(torch.nn.Module):
    def forward(self, images):
        raise RuntimeError("a kernel is missing")


@pytest.fixture(autouse=True)
def held(monkeypatch):
    """The streams that were held; the current one of a device is called 7."""
    streams = []
    monkeypatch.setattr(torch, "Event", Event)
    monkeypatch.setattr(torch.cuda, "device", made_current)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=7))
    monkeypatch.setattr(torch_resident, "hold", lambda stream, seconds: streams.append(stream))
    return streams


def engine(module):
    inputs, outputs = (TensorSpec("images", "float32", (None, 3)),), (TensorSpec("logits", "float32", (None, 3)),)
    return TorchEngine(module, inputs, outputs, options=EngineOptions(device="cpu"))


def test_the_device_measures_ten_runs_at_a_time_and_the_outputs_are_those_of_the_batch(held):
    with engine(Doubling()) as opened:
        resident = TorchResident(opened, IMAGES, ())
        resident.run()
        assert resident.time() == pytest.approx(4e-3)
        assert (resident.launches, resident.hidden, held) == (10, True, [7])
        np.testing.assert_array_equal(resident.outputs()["logits"], IMAGES * 2)
        resident.close()


def test_it_closes_though_nothing_was_timed():
    with engine(Failing()) as opened:
        TorchResident(opened, IMAGES, ()).close()
        resident = TorchResident(opened, IMAGES, ())
        with pytest.raises(RuntimeFailedError, match="a kernel is missing"):
            resident.time()
        resident.close()
        resident.close()
