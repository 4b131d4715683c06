"""How much memory the process grows by while a candidate is opened and first run, on the host and on the GPU."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from evodeploy.machine.nvml import used_bytes

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


class MemoryMeter:
    """What one candidate adds, summed over all that it does while watched; in bytes, None where nothing tells.

    `host` is the growth of the resident set at its peak (Linux). Memory that an earlier candidate gave back to the
    allocator and not to the system is used again unseen, so it is a lower bound. `device` is what the only GPU holds
    more of after than before, whoever took it.
    """

    def __init__(self) -> None:
        self.host: int | None = None
        self.device: int | None = None
        self._held = 0

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Count what happens inside as this candidate's."""
        resident, used = _start(), used_bytes()
        yield
        if resident is not None:
            self.host = max(self.host or 0, self._held + _resident("VmHWM") - resident)
            self._held += _resident("VmRSS") - resident
        after = used_bytes()
        if used is not None and after is not None:
            self.device = (self.device or 0) + after - used


def _start() -> int | None:
    """Set the high-water mark to what is resident now, and return that; None where the system has no such mark."""
    try:
        _RESET.write_text("5")
        return _resident("VmRSS")
    except OSError:
        return None


def _resident(mark: str) -> int:
    """Bytes at `mark` of the process's status: VmRSS now, VmHWM at its highest."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(mark))
    return int(line.split()[1]) * 1024
