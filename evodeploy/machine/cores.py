"""The number of cores and threads that may be used on this machine."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path, PurePosixPath

THREADS_PER_CORE = 4  # more only wait for each other, and many more crash the process of ONNX Runtime
GROUPS, OWN_GROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def usable_cores() -> int:
    """Return the number of cores this process may run on, or all if that is unknown, limited by its CPU quota.

    The quota is that of a container or a service (Linux control groups), such as Kubernetes' `limits: cpu`.
    """
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([there, *(math.ceil(quota) for quota in _quotas())])


def most_threads() -> int:
    """Return the highest number of threads that an engine may be asked to use."""
    return THREADS_PER_CORE * usable_cores()


def _quotas() -> list[float]:
    """Return the CPU limits, in cores, of the control groups of this process that have one.

    https://docs.kernel.org/admin-guide/cgroup-v2.html, and for version 1 sched-bwc.
    """
    limits: list[tuple[str, ...]] = [("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")]
    with contextlib.suppress(OSError, StopIteration):
        lines = OWN_GROUP.read_text().splitlines()
        own = PurePosixPath(next(line for line in lines if line.startswith("0::")).removeprefix("0::/"))
        limits += [(f"{group}/cpu.max",) for group in (own, *own.parents)]
    found = []
    for files in limits:
        with contextlib.suppress(OSError, ValueError):  # the file does not exist, or contains "max"
            quota, period = " ".join((GROUPS / file).read_text() for file in files).split()
            found += [int(quota) / int(period)] if int(quota) > 0 else []
    return found
