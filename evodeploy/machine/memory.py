"""The memory of this process, as Linux counts it."""

from __future__ import annotations

from pathlib import Path

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


def begin_peak() -> int | None:
    """Reset the high-water mark to the resident memory now, and return it; None if the system has no such mark."""
    try:
        _RESET.write_text("5")
        return resident_bytes()
    except OSError:
        return None


def resident_bytes() -> int:
    """Return the bytes that are resident now."""
    return _bytes("VmRSS")


def peak_bytes() -> int:
    """Return the largest number of bytes that were resident since `begin_peak`."""
    return _bytes("VmHWM")


def _bytes(mark: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(mark))
    return int(line.split()[1]) * 1024
