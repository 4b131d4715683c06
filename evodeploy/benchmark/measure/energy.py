"""The energy per run of a row."""

from __future__ import annotations

import time
from collections.abc import Callable

from evodeploy.machine.energy import Meter

SECONDS = 2.0  # counters are updated every millisecond (RAPL) to every tenth of a second (NVML)


def joules_per_run(run: Callable[[], object], meter: Meter) -> float:
    """Call `run` repeatedly for SECONDS with nothing else running, and return joules per run, including idle power."""
    runs, start, before = 0, time.perf_counter(), meter()
    while time.perf_counter() - start < SECONDS or not runs:
        run()
        runs += 1
    return (meter() - before) / runs
