"""How much memory the process grows by while a candidate is opened and first run, on the host and on the GPU."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from evodeploy.machine.memory import begin_peak, peak_bytes, resident_bytes
from evodeploy.machine.nvml import used_bytes


class MemoryMeter:
    """What one candidate adds, summed over all that it does while watched; in bytes, None where nothing says.

    `host` is the growth of the resident set at its peak (Linux). Memory that an earlier candidate gave back to the
    allocator and not to the system is used again unseen, so it is a lower bound. `device` is what the only GPU holds
    more of after than before, whichever process took it.
    """

    def __init__(self) -> None:
        self.host: int | None = None
        self.device: int | None = None
        self._held = 0

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Count what happens inside as this candidate's."""
        resident, used = begin_peak(), used_bytes()
        yield
        if resident is not None:
            self.host = max(self.host or 0, self._held + peak_bytes() - resident)
            self._held += resident_bytes() - resident
        after = used_bytes()
        if used is not None and after is not None:
            self.device = (self.device or 0) + after - used
