"""The GPU program in an engine of TensorRT for RTX: which kernels it launches, read without a GPU.

Such a plan holds its program as readable text, one record a kernel, under `main {` and its first label; what follows
that label computes shapes on the host. Programs with `accelerators={*}` are the fallbacks of single fused products.
The format is undocumented (observed with 1.7.1.116), so reading is best effort and never fails.
"""

from __future__ import annotations

import mmap
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

_PROGRAM = re.compile(rb"\n  accelerators=\{([^}]*)\}|\nmain \{\n label [^\n]*\n(.*?)\n(?: label |\})", re.DOTALL)
_RECORD = re.compile(rb'^  (\w+)=\{ name="?([^\s"]+)', re.MULTILINE)
_BACKBONE = re.compile(rb"\bbackbone=(\w+)")
_ATTENTION = b"_gemm_mha"
_NO_KERNELS = {"shape_call", "signal", "wait", "event"}
_KINDS = {
    "function": "fused",
    "runtime_function": "fused",
    "fully_connected": "gemm",
    "corrltn": "convolution",
    "copy": "copy",
    "memset": "memset",
}


@dataclass(frozen=True)
class GpuProgram:
    """Kernels that one inference launches, by kind, and the architectures that the program was made for.

    Kinds are `fused` (element-wise work, norms, softmax, data movement), `gemm` and `convolution` (with what is fused
    to them), `attention` (a whole one in a kernel), `copy`, `memset` and `other`.
    """

    kernels: dict[str, int]
    targets: tuple[str, ...]

    @property
    def total(self) -> int:
        """All kernels."""
        return sum(self.kernels.values())

    @property
    def attentions(self) -> int:
        """Attentions that run as one kernel each."""
        return self.kernels.get("attention", 0)


def read_program(plan: Path, profiles: int = 1) -> GpuProgram | None:
    """The program in the file `plan`, or None where there is none that can be read; see `program_of`."""
    try:
        with plan.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return program_of(data, profiles)
    except (OSError, ValueError):  # mmap's way to say that a file is empty
        return None


def program_of(plan: bytes | memoryview | mmap.mmap, profiles: int = 1) -> GpuProgram | None:
    """The program in a serialized engine, or None where the format is another.

    Of a plan with several optimization `profiles`, each of which has its own kernels, it is the first one's.
    """
    parts: list[Counter[str]] = []
    targets: tuple[str, ...] = ()
    made_for: tuple[str, ...] = ()
    for match in _PROGRAM.finditer(plan):
        if match[1] is not None:
            made_for = tuple(match[1].decode("ascii", "replace").split())
        elif made_for != ("*",):
            parts.append(_kinds(match[2]))
            targets = targets or made_for
    kernels = sum(parts[: len(parts) // profiles], Counter[str]())
    return GpuProgram(dict(kernels.most_common()), targets) if kernels else None


def _kinds(text: bytes) -> Counter[str]:
    records = list(_RECORD.finditer(text))
    ends = [*(record.start() for record in records[1:]), len(text)]
    kinds: Counter[str] = Counter()
    for record, end in zip(records, ends, strict=True):
        name = record[1].decode("ascii", "replace")
        if name == "runtime_fusion":
            backbone = _BACKBONE.search(text, record.end(), end)
            kinds["gemm" if backbone is not None and backbone[1] == b"gemm" else "convolution"] += 1
        elif record[2].startswith(_ATTENTION):
            kinds["attention"] += 1
        elif name not in _NO_KERNELS:
            kinds[_KINDS.get(name, "other")] += 1
    return kinds
