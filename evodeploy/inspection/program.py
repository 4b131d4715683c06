"""The GPU program in an engine of TensorRT for RTX: the kernels that it launches, read without a GPU.

Such a plan contains its program as readable text. Its target is under `header {` and its tensors under `descriptors {`.
Its kernels, one record each, are under `main {` and its first label. The computation of sizes from the batch is under
`shape_main {`. Programs with `accelerators={*}` are fallbacks of single fused products. The format is undocumented
(observed with 1.7.1.116), so reading is best effort and never fails.
"""

from __future__ import annotations

import mmap
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from evodeploy.errors import UsageError
from evodeploy.files import open_regular

# Matches have a bounded length, and no text is scanned twice, so that even a malicious file is read in linear time.
_BEGIN = re.compile(
    rb"\n  accelerators=\{([^}\n]{0,500})\}|\nmain \{\n label [^\n]{0,500}\n|\nshape_main \{\n label [^\n]{0,500}\n"
)
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
class ProgramText:
    """The sections of a program: its tensors, its kernels, and the computation of sizes."""

    tensors: bytes
    kernels: bytes
    sizes: bytes


@dataclass(frozen=True)
class GpuProgram:
    """The number of kernels that one inference launches, by kind.

    Kinds are `fused` (element-wise work, norms, softmax, data movement), `gemm` and `convolution` (including operations
    fused into them), `attention` (a complete one in a single kernel), `copy`, `memset` and `other`.
    """

    kernels: dict[str, int]

    @property
    def total(self) -> int:
        """The number of all kernels."""
        return sum(self.kernels.values())

    @property
    def attentions(self) -> int:
        """The number of attentions that run as a single kernel."""
        return self.kernels.get("attention", 0)


def read_program(plan: Path, profiles: int = 1) -> GpuProgram | None:
    """Return the program in the file `plan`, or None if none can be read.

    If a plan has several optimization `profiles`, each with its own kernels, it is the program of the first.
    """
    texts = read_texts(plan, profiles)
    return counted(texts[0]) if texts else None


def read_texts(plan: Path, profiles: int = 1) -> list[list[ProgramText]]:
    """Read the programs in the file `plan` with `texts_of`; the list is empty if the file cannot be read."""
    try:
        with (
            open_regular(plan, "a TensorRT engine") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            return texts_of(data, profiles)
    except (UsageError, OSError, ValueError):  # mmap raises ValueError for an empty file
        return []


def texts_of(plan: bytes | mmap.mmap, profiles: int = 1) -> list[list[ProgramText]]:
    """Return the programs of each optimization profile, in execution order.

    The list is empty if the format is unknown, or if the programs cannot be divided among the profiles.
    """
    found: list[ProgramText] = []
    position = tensors = 0
    is_fallback = False
    while (begin := _BEGIN.search(plan, position)) is not None:
        position = begin.end()
        if begin[1] is not None:
            is_fallback, tensors = begin[1].strip() == b"*", position
            continue
        end = _END.search(plan, position)
        if end is None:
            break
        text, position = bytes(plan[position : end.start()]), end.end()
        if is_fallback:
            continue
        if begin[0].startswith(b"\nmain"):
            found.append(ProgramText(bytes(plan[tensors : begin.start()]) if tensors else b"", text, b""))
        elif found and not found[-1].sizes:
            last = found[-1]
            found[-1] = ProgramText(last.tensors, last.kernels, text)
        tensors = 0
    each, left = divmod(len(found), profiles)
    return [found[index * each : (index + 1) * each] for index in range(profiles)] if each and not left else []


def records_of(kernels: bytes) -> Iterator[tuple[str, str, bytes]]:
    """Yield the kind, the name and the whole text of each kernel in a program's section."""
    records = list(_RECORD.finditer(kernels))
    ends = [*(record.start() for record in records), len(kernels)][1:]
    for record, end in zip(records, ends, strict=True):
        kind = _kind(record, kernels, end)
        if kind is not None:
            yield kind, record[2].decode("ascii", "replace"), kernels[record.start() : end]


def _kind(record: re.Match[bytes], kernels: bytes, end: int) -> str | None:
    name = record[1].decode("ascii", "replace")
    if name == "runtime_fusion":
        backbone = _BACKBONE.search(kernels, record.end(), end)
        return "gemm" if backbone is not None and backbone[1] == b"gemm" else "convolution"
    if record[2].startswith(_ATTENTION):
        return "attention"
    return None if name in _NO_KERNELS else _KINDS.get(name, "other")


def counted(texts: list[ProgramText]) -> GpuProgram | None:
    """Count the kernels of one profile's programs; return None if there are none."""
    kinds = Counter(kind for text in texts for kind, _, _ in records_of(text.kernels))
    return GpuProgram(dict(kinds.most_common())) if kinds else None
