"""Energy counters of the processor (RAPL) and the GPU (NVML), if they can be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from evodeploy.machine.nvml import energy_joules

POWERCAP = Path("/sys/class/powercap")

Meter = Callable[[], float]  # joules since some moment in the past


def meter_of(device: str) -> Meter | None:
    """Return the energy counter of `device`, or None if there is none or it may not be read."""
    if device.startswith("cuda"):
        return _nvml if energy_joules() is not None else None
    packages = [zone for zone in sorted(POWERCAP.glob("intel-rapl:*")) if _is_package(zone)]
    return _Rapl(packages) if packages else None


class _Rapl:
    """The energy of all processor packages. Under load their counters restart at zero every few minutes."""

    def __init__(self, packages: list[Path]) -> None:
        self._packages = packages
        self._ranges = [int((zone / "max_energy_range_uj").read_text()) for zone in packages]
        self._last = self._read()
        self._total = 0

    def __call__(self) -> float:
        now = self._read()
        for value, last, size in zip(now, self._last, self._ranges, strict=True):
            self._total += (value - last) % size
        self._last = now
        return self._total / 1e6

    def _read(self) -> list[int]:
        return [int((zone / "energy_uj").read_text()) for zone in self._packages]


def _nvml() -> float:
    joules = energy_joules()
    if joules is None:
        raise RuntimeError("the GPU's energy counter could be read before and cannot be now")
    return joules


def _is_package(zone: Path) -> bool:
    """Return whether `zone` counts a processor package and is readable: others count parts, or a whole laptop."""
    try:
        return (zone / "name").read_text().startswith("package") and bool((zone / "energy_uj").read_text())
    except OSError:
        return False
