"""Calls to NVIDIA's management library through ctypes: it comes with every driver, and needs no package.

NVIDIA's own binding, nvidia-ml-py (BSD, maintained), would make this shorter. But it would add 8,000 lines to every
installation, with a stray module called `example`. Runs from a checkout without an installation, such as the acceptance
test on a GPU, would lose clocks, energy and memory. `tests/gpu/nvml_step.py` compares the two on a GPU.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from dataclasses import dataclass

_LIBRARY = "nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1"
_SM_CLOCK, _MEMORY_CLOCK = 1, 2  # NVML_CLOCK_SM, NVML_CLOCK_MEM
_OF_THE_GPU = 0  # NVML_TEMPERATURE_GPU
# nvmlClocksEventReasons, formerly ThrottleReasons, that lower the clocks under load. The others are idle states and
# settings.
_SLOWDOWNS = {
    0x04: "power_cap",
    0x08: "hardware_slowdown",
    0x20: "software_thermal_slowdown",
    0x40: "hardware_thermal_slowdown",
    0x80: "power_brake",
}


@dataclass(frozen=True)
class Gpu:
    """One GPU: clocks of its multiprocessors in MHz, the power limit in watts. Unknown values are None.

    With `mig` it is divided into instances, and the values are those of the whole card.
    """

    name: str
    driver: str
    memory_bytes: int | None
    mhz: int | None
    max_mhz: int | None
    power_limit_watts: float | None
    mig: bool = False


@dataclass(frozen=True)
class GpuState:
    """A GPU at one moment: clocks in MHz, degrees Celsius, and the reasons for slowdowns. Unknown values are None."""

    mhz: int | None
    memory_mhz: int | None
    celsius: int | None
    slowdowns: tuple[str, ...]


class _Memory(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]


def gpus() -> tuple[Gpu, ...]:
    """Return all GPUs that the driver knows; none without a driver."""
    nvml = _library()
    return () if nvml is None else tuple(_gpu(nvml, handle) for handle in _handles(nvml))


def gpu_state() -> GpuState | None:
    """Return the current state of the machine's only GPU, or None if it cannot be read.

    With several GPUs the result is None, and so it is for energy and memory: NVML may number them differently from
    CUDA.
    """
    nvml, handle = _only_gpu()
    if nvml is None or handle is None:
        return None
    # The old name of nvmlDeviceGetCurrentClocksEventReasons, which every driver knows.
    reasons = _asked(nvml, "nvmlDeviceGetCurrentClocksThrottleReasons", handle) or 0
    return GpuState(
        mhz=_asked(nvml, "nvmlDeviceGetClockInfo", handle, _SM_CLOCK),
        memory_mhz=_asked(nvml, "nvmlDeviceGetClockInfo", handle, _MEMORY_CLOCK),
        celsius=_asked(nvml, "nvmlDeviceGetTemperature", handle, _OF_THE_GPU),
        slowdowns=tuple(name for bit, name in _SLOWDOWNS.items() if reasons & bit),
    )


def energy_joules() -> float | None:
    """Return the energy that the machine's only GPU used since the driver was loaded; None if unknown or divided."""
    nvml, handle = _only_gpu()
    if nvml is None or handle is None or _is_divided(nvml, handle):
        return None
    millijoules = _asked(nvml, "nvmlDeviceGetTotalEnergyConsumption", handle)
    return None if millijoules is None else millijoules / 1e3


def used_bytes() -> int | None:
    """Return the memory in use on the machine's only GPU, by all processes; None if unknown or the GPU is divided."""
    nvml, handle = _only_gpu()
    if nvml is None or handle is None or _is_divided(nvml, handle):
        return None
    memory = _memory(nvml, handle)
    return None if memory is None else memory.used


def _only_gpu() -> tuple[ctypes.CDLL | None, ctypes.c_void_p | None]:
    nvml = _library()
    handles = [] if nvml is None else _handles(nvml)
    return nvml, handles[0] if len(handles) == 1 else None


@functools.cache
def _library() -> ctypes.CDLL | None:
    """Return the library, initialised once until the process ends, because that takes longer than all queries."""
    try:
        nvml = ctypes.CDLL(_LIBRARY)
    except OSError:
        return None
    return nvml if nvml.nvmlInit_v2() == 0 else None


def _handles(nvml: ctypes.CDLL) -> list[ctypes.c_void_p]:
    count = ctypes.c_uint()
    if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
        return []
    found = []
    for index in range(count.value):
        handle = ctypes.c_void_p()
        if nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)) == 0:
            found.append(handle)
    return found


def _gpu(nvml: ctypes.CDLL, handle: ctypes.c_void_p) -> Gpu:
    name, driver = ctypes.create_string_buffer(96), ctypes.create_string_buffer(80)
    nvml.nvmlDeviceGetName(handle, name, len(name))
    nvml.nvmlSystemGetDriverVersion(driver, len(driver))
    memory = _memory(nvml, handle)
    milliwatts = _asked(nvml, "nvmlDeviceGetEnforcedPowerLimit", handle)
    return Gpu(
        name=name.value.decode(),
        driver=driver.value.decode(),
        memory_bytes=memory.total if memory else None,
        mhz=_asked(nvml, "nvmlDeviceGetClockInfo", handle, _SM_CLOCK),
        max_mhz=_asked(nvml, "nvmlDeviceGetMaxClockInfo", handle, _SM_CLOCK),
        power_limit_watts=None if milliwatts is None else milliwatts / 1e3,
        mig=_is_divided(nvml, handle),
    )


def _is_divided(nvml: ctypes.CDLL, handle: ctypes.c_void_p) -> bool:
    """Return whether the GPU is in MIG mode."""
    now, after_reset = ctypes.c_uint(), ctypes.c_uint()
    return nvml.nvmlDeviceGetMigMode(handle, ctypes.byref(now), ctypes.byref(after_reset)) == 0 and now.value == 1


def _memory(nvml: ctypes.CDLL, handle: ctypes.c_void_p) -> _Memory | None:
    memory = _Memory()
    return memory if nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) == 0 else None


def _asked(nvml: ctypes.CDLL, function: str, handle: ctypes.c_void_p, *arguments: int) -> int | None:
    """Return one number from `function`, or None if the GPU does not support it."""
    value = ctypes.c_ulonglong()
    status = getattr(nvml, function)(handle, *arguments, ctypes.byref(value))
    return value.value if status == 0 else None
