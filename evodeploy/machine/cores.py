"""What of this machine may be used."""

from __future__ import annotations

import os

THREADS_PER_CORE = 4  # more only wait for each other, and far more end ONNX Runtime's process


def usable_cores() -> int:
    """Cores this process may run on, where the system reports them, else all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def most_threads() -> int:
    """The most threads that an engine may be asked to use."""
    return THREADS_PER_CORE * usable_cores()
