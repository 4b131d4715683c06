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

from evodeploy.errors import UsageError
from evodeploy.files import open_regular

# What these match is of bounded length and no text is looked at twice, so that the worst file is read in linear time.
_BEGIN = re.compile(rb"\n  accelerators=\{([^}\n]{0,500})\}|\nmain \{\n label [^\n]{0,500}\n")
_END = re.compile(rb"\n(?: label |\})")
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
        with (
            open_regular(plan, "a TensorRT engine") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            return program_of(data, profiles)
    except (UsageError, OSError, ValueError):  # ValueError is mmap's way to say that a file is empty
        return None


def program_of(plan: bytes | memoryview | mmap.mmap, profiles: int = 1) -> GpuProgram | None:
    """The program in a serialized engine, or None where the format is another.

    Of a plan with several optimization `profiles`, each of which has its own kernels, it is the first one's.
    """
    parts: list[Counter[str]] = []
    targets: tuple[str, ...] = ()
    made_for: tuple[str, ...] = ()
    position = 0
    while (begin := _BEGIN.search(plan, position)) is not None:
        position = begin.end()
        if begin[1] is not None:
            made_for = tuple(begin[1].decode("ascii", "replace").split())
            continue
        end = _END.search(plan, position)
        if end is None:
            break
        if made_for != ("*",):
            parts.append(_kinds(plan[position : end.start()]))
            targets = targets or made_for
        position = end.end()
    kernels = sum(parts[: len(parts) // profiles], Counter[str]())
    return GpuProgram(dict(kernels.most_common()), targets) if kernels else None


def _kinds(text: bytes | memoryview) -> Counter[str]:
    records = list(_RECORD.finditer(text))
    ends = [*(record.start() for record in records), len(text)][1:]
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
