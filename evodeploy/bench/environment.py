"""What a measurement was taken on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from dataclasses import dataclass
from pathlib import Path

_PACKAGES = ("evodeploy", "numpy", "torch", "onnx", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt")


@dataclass(frozen=True)
class Environment:
    """The machine and the versions; `threads` is the number of CPU threads that every engine was given."""

    processor: str
    cores: int
    threads: int
    system: str
    python: str
    packages: dict[str, str]


def environment(threads: int) -> Environment:
    """Read it off this machine."""
    return Environment(
        processor=processor_name(),
        cores=usable_cores(),
        threads=threads,
        system=platform.platform(),
        python=platform.python_version(),
        packages=package_versions(_PACKAGES),
    )


def package_versions(names: tuple[str, ...]) -> dict[str, str]:
    """The versions of those of `names` that are installed."""
    installed = {}
    for name in names:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def usable_cores() -> int:
    """Cores this process may run on, where the system tells, else all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor_name() -> str:
    """The CPU's own name."""
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
