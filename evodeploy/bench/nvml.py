"""NVIDIA's management library, asked through ctypes: it comes with every driver, and needs no package."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator
from dataclasses import dataclass

_LIBRARY = "nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1"
_SM_CLOCK = 1  # NVML_CLOCK_SM


@dataclass(frozen=True)
class Gpu:
    """One GPU: clocks are of its multiprocessors in MHz, the power limit in watts; None where it does not tell."""

    name: str
    driver: str
    memory_bytes: int | None
    mhz: int | None
    max_mhz: int | None
    power_limit_watts: float | None


class _Memory(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]


def gpus() -> tuple[Gpu, ...]:
    """All GPUs that the driver knows; none without a driver."""
    with _library() as nvml:
        return () if nvml is None else tuple(_gpu(nvml, handle) for handle in _handles(nvml))


def energy_joules() -> float | None:
    """What the machine's only GPU has used since the driver was loaded; None where it does not tell.

    Of several GPUs none is asked, here and for memory: NVML's numbers of them need not be CUDA's.
    """
    with _only_gpu() as (nvml, handle):
        millijoules = _asked(nvml, "nvmlDeviceGetTotalEnergyConsumption", handle) if nvml and handle else None
        return None if millijoules is None else millijoules / 1e3


def used_bytes() -> int | None:
    """How much memory of the machine's only GPU is in use, by whatever process."""
    with _only_gpu() as (nvml, handle):
        memory = _memory(nvml, handle) if nvml and handle else None
        return None if memory is None else memory.used


@contextlib.contextmanager
def _only_gpu() -> Iterator[tuple[ctypes.CDLL | None, ctypes.c_void_p | None]]:
    with _library() as nvml:
        handles = [] if nvml is None else _handles(nvml)
        yield nvml, handles[0] if len(handles) == 1 else None


@contextlib.contextmanager
def _library() -> Iterator[ctypes.CDLL | None]:
    try:
        nvml = ctypes.CDLL(_LIBRARY)
    except OSError:
        yield None
        return
    if nvml.nvmlInit_v2() != 0:
        yield None
        return
    try:
        yield nvml
    finally:
        nvml.nvmlShutdown()


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
    )


def _memory(nvml: ctypes.CDLL, handle: ctypes.c_void_p) -> _Memory | None:
    memory = _Memory()
    return memory if nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) == 0 else None


def _asked(nvml: ctypes.CDLL, function: str, handle: ctypes.c_void_p, *arguments: int) -> int | None:
    """One number from `function`, or None where the GPU does not support it."""
    value = ctypes.c_ulonglong()
    status = getattr(nvml, function)(handle, *arguments, ctypes.byref(value))
    return value.value if status == 0 else None
