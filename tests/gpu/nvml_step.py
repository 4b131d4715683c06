"""What `evodeploy.machine.nvml` reads of the GPU, against NVIDIA's own binding (nvidia-ml-py), idle and under load."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

from gpu.facts import NotRunError, of_this_process

from evodeploy.machine.nvml import energy_joules, gpu_state, gpus, used_bytes

GIGABYTE = 1_000_000_000
SECONDS = 2.0


def needed() -> tuple[Any, Any]:
    """NVIDIA's binding and PyTorch with CUDA; raises NotRunError."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception as error:
        raise NotRunError(f"NVML cannot be asked here: {error}") from error
    import torch

    if not torch.cuda.is_available():
        raise NotRunError("PyTorch has no CUDA here")
    if pynvml.nvmlDeviceGetCount() != 1:
        raise NotRunError("there are several GPUs here, of which none is asked")
    return pynvml, torch


@contextlib.contextmanager
def load(torch: Any) -> Iterator[None]:
    """Matrix products for as long as this is entered."""
    factor = torch.randn(8192, 8192, device="cuda", dtype=torch.float16)
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            for _ in range(8):
                factor @ factor
            torch.cuda.synchronize()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        time.sleep(1)
        yield
    finally:
        stop.set()
        thread.join()


def close(ours: float, theirs: float, share: float) -> None:
    """Fail where the two differ by more than `share` of theirs."""
    assert abs(ours - theirs) <= share * theirs, f"{ours} here, {theirs} by nvidia-ml-py"


def main() -> None:
    """Run all checks."""
    facts = of_this_process()
    here: list[Any] = []
    with facts.check("nvml_and_torch_are_here"):
        here += needed()
    if not here:
        return
    nvml, torch = here
    handle = nvml.nvmlDeviceGetHandleByIndex(0)
    torch.ones(1, device="cuda")
    with facts.check("name_memory_and_limits") as found:
        (gpu,) = gpus()
        found |= vars(gpu)
        assert gpu.name == nvml.nvmlDeviceGetName(handle)
        assert gpu.driver == nvml.nvmlSystemGetDriverVersion()
        assert gpu.memory_bytes == nvml.nvmlDeviceGetMemoryInfo(handle).total
        assert gpu.max_mhz == nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM)
        close(gpu.power_limit_watts or 0, nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1e3, 0.01)
    with facts.check("memory_of_a_gigabyte") as found:
        before, theirs_before = used_bytes() or 0, nvml.nvmlDeviceGetMemoryInfo(handle).used
        held = torch.empty(GIGABYTE, dtype=torch.uint8, device="cuda")
        found["ours"] = (used_bytes() or 0) - before
        found["theirs"] = nvml.nvmlDeviceGetMemoryInfo(handle).used - theirs_before
        del held
        close(found["ours"], GIGABYTE, 0.05)
        close(found["ours"], found["theirs"], 0.01)
    with facts.check("clock_under_load") as found, load(torch):
        found["ours"] = gpus()[0].mhz
        found["theirs"] = nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)
        close(found["ours"], found["theirs"], 0.1)
    with facts.check("state_under_load") as found, load(torch):
        state = gpu_state()
        assert state is not None, "the only GPU says nothing"
        found |= vars(state)
        reasons = nvml.nvmlDeviceGetCurrentClocksEventReasons(handle)
        found["reasons_by_nvidia_ml_py"] = reasons
        names = ("SwPowerCap", "HwSlowdown", "SwThermalSlowdown", "HwThermalSlowdown", "HwPowerBrakeSlowdown")
        assert len(state.slowdowns) == sum(bool(reasons & getattr(nvml, f"nvmlClocksEventReason{n}")) for n in names)
        close(state.memory_mhz or 0, nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM), 0.1)
        close(state.celsius or 0, nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU), 0.1)
    with facts.check("energy_under_load") as found, load(torch):
        theirs, ours = nvml.nvmlDeviceGetTotalEnergyConsumption(handle), energy_joules() or 0.0
        time.sleep(SECONDS)
        found["watts"] = nvml.nvmlDeviceGetPowerUsage(handle) / 1e3
        found["joules"] = (energy_joules() or 0.0) - ours
        found["joules_by_nvidia_ml_py"] = (nvml.nvmlDeviceGetTotalEnergyConsumption(handle) - theirs) / 1e3
        close(found["joules"], found["joules_by_nvidia_ml_py"], 0.1)
        close(found["joules"], found["watts"] * SECONDS, 0.3)


if __name__ == "__main__":
    main()
