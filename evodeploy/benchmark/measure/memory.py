"""The growth of the process's memory while a candidate is opened and first run, on the host and on the GPU."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from evodeploy.machine.memory import begin_peak, peak_bytes, resident_bytes
from evodeploy.machine.nvml import used_bytes


class MemoryMeter:
    """The memory that one candidate adds, summed over everything it does while watched, in bytes; None if unknown.

    `host` is the growth of the resident set at its peak (Linux). It is a lower bound: memory that an earlier candidate
    returned to the allocator, but not to the system, is reused unseen. `device` is the growth of the memory in use on
    the only GPU, by all processes.
    """

    def __init__(self) -> None:
        self.host: int | None = None
        self.device: int | None = None
        self._held = 0

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Count the growth inside as this candidate's."""
        resident, used = begin_peak(), used_bytes()
        yield
        if resident is not None:
            self.host = max(self.host or 0, self._held + peak_bytes() - resident)
            self._held += resident_bytes() - resident
        after = used_bytes()
        if used is not None and after is not None:
            self.device = (self.device or 0) + after - used
