"""NVML, played by an object that answers as the library does, and what a bench makes of it."""

from __future__ import annotations

import ctypes
import dataclasses

import pytest
from benchmark.fakes import fake, raced, report, row

from evodeploy.benchmark.measure.clocks import ClockLog, Clocks
from evodeploy.benchmark.report.report import cautions
from evodeploy.machine import nvml
from evodeploy.machine.nvml import Gpu, GpuState, energy_joules, gpu_state, gpus, used_bytes

NOT_SUPPORTED = 3  # NVML_ERROR_NOT_SUPPORTED


class Library:
    """One GPU under load; `numbers` are its answers, by function and what was asked of it."""

    def __init__(self, **numbers):
        self.count = 1
        self.mig = 0
        self.numbers = {
            "ClockInfo1": 1410, "ClockInfo2": 2619, "MaxClockInfo1": 1980, "Temperature0": 71,
            "CurrentClocksThrottleReasons": 0x04 | 0x20 | 0x02, "TotalEnergyConsumption": 2**33,
            "EnforcedPowerLimit": 700_000, **numbers,
        }  # fmt: skip

    def nvmlInit_v2(self):  # noqa: N802
        return 0

    def nvmlDeviceGetCount_v2(self, count):  # noqa: N802
        count._obj.value = self.count
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index, handle):  # noqa: N802
        handle._obj.value = index + 1
        return 0

    def nvmlDeviceGetName(self, handle, name, size):  # noqa: N802
        name.value = b"NVIDIA H100"
        return 0

    def nvmlSystemGetDriverVersion(self, version, size):  # noqa: N802
        version.value = b"580.95"
        return 0

    def nvmlDeviceGetMemoryInfo(self, handle, memory):  # noqa: N802
        memory._obj.total, memory._obj.used = 80 << 30, 5 << 30
        return 0

    def nvmlDeviceGetMigMode(self, handle, now, pending):  # noqa: N802
        now._obj.value = self.mig
        return 0

    def __getattr__(self, function):
        def ask(handle, *arguments):
            *which, value = arguments
            answer = self.numbers.get(function.removeprefix("nvmlDeviceGet") + "".join(map(str, which)))
            if answer is None:
                return NOT_SUPPORTED
            value._obj.value = answer
            return 0

        return ask


@pytest.fixture
def library(monkeypatch):
    """The library, instead of the one of a driver."""
    found = Library()
    monkeypatch.setattr(nvml.ctypes, "CDLL", lambda name: found)
    nvml._library.cache_clear()
    yield found
    nvml._library.cache_clear()


def test_a_gpu_says_what_it_is_and_does(library):
    assert gpus() == (Gpu("NVIDIA H100", "580.95", 80 << 30, 1410, 1980, 700.0),)
    assert gpu_state() == GpuState(1410, 2619, 71, ("power_cap", "software_thermal_slowdown"))
    assert (energy_joules(), used_bytes()) == (2**33 / 1e3, 5 << 30)


def test_what_a_gpu_does_not_support_is_none(library):
    library.numbers = {}
    assert gpu_state() == GpuState(None, None, None, ())
    assert energy_joules() is None
    assert gpus()[0].power_limit_watts is None


def test_of_a_divided_gpu_there_is_no_energy_and_no_memory(library):
    library.mig = 1
    assert (energy_joules(), used_bytes()) == (None, None)
    assert gpus()[0].mig
    assert gpu_state().mhz == 1410


def test_of_several_gpus_none_is_asked(library):
    library.count = 2
    assert (gpu_state(), energy_joules(), used_bytes()) == (None, None, None)
    assert len(gpus()) == 2


def test_without_a_driver_there_is_nothing(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    nvml._library.cache_clear()
    assert (gpus(), gpu_state(), energy_joules(), used_bytes()) == ((), None, None, None)
    nvml._library.cache_clear()


def test_each_row_of_a_gpu_has_the_clocks_of_its_own_samples(library, monkeypatch):
    monkeypatch.setattr("evodeploy.benchmark.timed_rows.meter_of", lambda device: None)

    def heat(images):
        library.numbers["ClockInfo1"] -= 10
        return {"logits": images.reshape(len(images), -1)[:, :3]}

    host, hot, resident = raced([fake("torch"), fake("tensorrt", compute=heat, device_seconds=0.25)], [1])
    assert host.clocks is None
    assert hot.clocks.mhz > resident.clocks.lowest_mhz
    assert hot.clocks.slowdowns == (("power_cap", 1.0), ("software_thermal_slowdown", 1.0))


def test_a_gpu_that_slowed_down_is_reported_with_the_reason():
    states = [GpuState(1500, 2619, 60, ()), GpuState(1200, 2619, 84, ("power_cap",)), GpuState(None, None, None, ())]
    warm_up = GpuState(300, 405, 90, ("idle",))
    clocks = ClockLog([warm_up, *states, GpuState(1400, 2619, 70, ("power_cap",))]).summary(len(states) + 1)
    assert clocks == Clocks(1400, 1200, 2619, 84, (("power_cap", 0.5),))
    hot = dataclasses.replace(row("torch", 4), clocks=clocks)
    found = report([hot, row("tensorrt", 2)])
    assert found.to_dict()["results"][0]["gpu"]["slowdowns"] == {"power_cap": 0.5}
    assert found.to_dict()["results"][1]["gpu"] is None
    (caution,) = cautions(found)
    assert caution == (
        "the GPU slowed down in 1 of 2 rows (MHz marked !), in torch fp32 at batch 1 the most: power cap 50% of its "
        "samples, 1200 MHz at the lowest"
    )
