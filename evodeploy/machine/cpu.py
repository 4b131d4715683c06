"""The processor and its memory, as the system describes them."""

from __future__ import annotations

import os
import platform
from pathlib import Path

_CPU = Path("/sys/devices/system/cpu/cpu0")


def processor_name() -> str:
    """Return the CPU's name."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def cpu_flags() -> set[str]:
    """Return the instruction sets of the CPU by the kernel's names, or an empty set if unknown."""
    return set((_cpuinfo("flags") or _cpuinfo("Features") or "").split())


def has_bf16() -> bool:
    """Return whether the CPU has instructions to multiply BF16."""
    return bool({"avx512_bf16", "amx_bf16"} & cpu_flags())


def saturates_int8() -> bool:
    """Return whether fast INT8 products may saturate: x86 adds pairs of them in 16 bits, unless VNNI is known."""
    return platform.machine().lower() in ("x86_64", "amd64") and not {"avx512_vnni", "avx_vnni"} & cpu_flags()


def _cpuinfo(field: str) -> str | None:
    for line in (_text(Path("/proc/cpuinfo")) or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == field:
            return value.strip()
    return None


def clock_mhz() -> float | None:
    """Return the current clock of the first core, or None if unknown."""
    found = _cpuinfo("cpu MHz")
    return float(found) if found else None


def caches() -> dict[str, str]:
    """Return the cache sizes of the first core by level, such as L1d."""
    found = {}
    for folder in sorted((_CPU / "cache").glob("index*")):
        level, kind, size = (_text(folder / name) for name in ("level", "type", "size"))
        if level and kind and size:
            suffix = {"Data": "d", "Instruction": "i"}.get(kind, "")
            found[f"L{level}{suffix}"] = size
    return found


def memory_bytes() -> int | None:
    """Return the size of the machine's memory, or None if unknown."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def governor() -> str | None:
    """Return the governor that sets the first core's clock, such as performance, or None if unknown."""
    return _text(_CPU / "cpufreq" / "scaling_governor")


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return None
