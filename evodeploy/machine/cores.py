"""What of this machine may be used."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path, PurePosixPath

THREADS_PER_CORE = 4  # more only wait for each other, and far more end ONNX Runtime's process
GROUPS, OWN_GROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def usable_cores() -> int:
    """Cores this process may run on, where the system reports them, else all; no more than its CPU quota amounts to.

    The quota is that of a container or a service (Linux control groups), such as Kubernetes' `limits: cpu`.
    """
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([there, *(math.ceil(quota) for quota in _quotas())])


def most_threads() -> int:
    """The most threads that an engine may be asked to use."""
    return THREADS_PER_CORE * usable_cores()


def _quotas() -> list[float]:
    """Cores' worth of time that the control groups of this process allow, each of those that have a limit.

    https://docs.kernel.org/admin-guide/cgroup-v2.html, and for version 1 sched-bwc.
    """
    limits: list[tuple[str, ...]] = [("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")]
    with contextlib.suppress(OSError, StopIteration):
        lines = OWN_GROUP.read_text().splitlines()
        own = PurePosixPath(next(line for line in lines if line.startswith("0::")).removeprefix("0::/"))
        limits += [(f"{group}/cpu.max",) for group in (own, *own.parents)]
    found = []
    for files in limits:
        with contextlib.suppress(OSError, ValueError):  # none is there, or it is "max"
            quota, period = " ".join((GROUPS / file).read_text() for file in files).split()
            found += [int(quota) / int(period)] if int(quota) > 0 else []
    return found
