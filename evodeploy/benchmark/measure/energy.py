"""The energy that a row's runs take."""

from __future__ import annotations

import time
from collections.abc import Callable

from evodeploy.machine.energy import Meter

SECONDS = 2.0  # counters move every millisecond (RAPL) to every tenth of a second (NVML)


def joules_per_run(run: Callable[[], object], meter: Meter) -> float:
    """Let `run` run alone, again and again for SECONDS; the energy of one run, what the machine idles at included."""
    runs, start, before = 0, time.perf_counter(), meter()
    while time.perf_counter() - start < SECONDS or not runs:
        run()
        runs += 1
    return (meter() - before) / runs
