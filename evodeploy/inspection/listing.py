"""What each kernel of a plan's GPU program reads and writes, with the sizes that one batch gives.

Sizes that depend on the batch have names. The plan computes them from the batch by a list of steps on whole numbers,
and so does this module. What it cannot read is left out, and the kernels that needed it are marked.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from evodeploy.inspection.program import ProgramText, records_of

_TENSOR = re.compile(r"^  (?:sub_)?tensor=\{ ([^\n]*)", re.MULTILINE)
_STEP = re.compile(r"^  (\w+)=\{ ([^\n]*)", re.MULTILINE)
_NAMES = r"\{((?:\s*\"[^\"\n]*\")*)\s*\}"
_READ = re.compile(rf"(?<!\w)input(?:_args)?={_NAMES}")
_WRITTEN = re.compile(rf"(?<!\w)output(?:_args)?={_NAMES}")
_QUOTED = re.compile(r'"([^"]*)"')
_NAME = re.compile(r'(?<!\w)name=(?:"([^"]*)"|(\S+))')
_DIMS = re.compile(r"(?<!\w)dims=\{((?:\s*(?:\"[^\"\n]*\"|\d{1,18}(?!\d)))*)\s*\}")
_DIM = re.compile(r'"([^"]*)"|(\d+)')
_VIEW = re.compile(r'(?<!\w)base="([^"]*)" const_offset=(\S+)')
_TYPE = re.compile(r"(?<!\w)type=(\w+)")
_HOST = re.compile(r'(?<!\w)region="?\w*hmem')  # memory of the host, where sizes lie
_STREAM = re.compile(r"(?<!\w)stream=(\d{1,9})(?!\d)")
_LITERAL = re.compile(r'(?<!\w)src="(-?\d{1,18})i\d+"')
_LARGEST = 2**63
_RANK = 8  # axes of a tensor, at most
_BYTES = {
    "bool": 1, "int8": 1, "uint8": 1, "fp8_e4m3": 1, "half": 2, "bf16": 2, "float": 4, "int32": 4, "int64": 8,
}  # fmt: skip
_STEPS: dict[str, Callable[..., int]] = {
    "copy": int,
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.floordiv,
    "min": min,
    "max": max,
    "eq": operator.eq,
    "neq": operator.ne,
    "lt": operator.lt,
    "leq": operator.le,
    "gt": operator.gt,
    "geq": operator.ge,
    "and": lambda one, other: one and other,
    "or": lambda one, other: one or other,
    "select": lambda condition, one, other: one if condition else other,
}


@dataclass(frozen=True)
class Tensor:
    """What a kernel reads or writes in the GPU's memory; `constant` is a weight.

    Tensors of one `place` and size are the same bytes, whatever their shapes.
    """

    place: str
    shape: tuple[int, ...]
    dtype: str
    constant: bool

    @property
    def elements(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """How many bytes it takes."""
        return self.elements * _BYTES[self.dtype]


@dataclass(frozen=True)
class Kernel:
    """A kernel of one inference. It is not `whole` where the size of something that it reads or writes is unknown.

    Kernels of one `stream` run one after the other, those of two may overlap.
    """

    name: str
    kind: str
    reads: tuple[Tensor, ...]
    writes: tuple[Tensor, ...]
    whole: bool
    stream: int = 0


def kernels_of(texts: Iterable[ProgramText], batch: int) -> list[Kernel]:
    """The kernels of a profile's programs at `batch` images, in the order that they run in."""
    return [kernel for text in texts for kernel in _kernels(text, batch)]


def _kernels(text: ProgramText, batch: int) -> Iterator[Kernel]:
    tensors, host = _tensors(text, _sizes(text, batch))
    for kind, name, record in records_of(text.kernels):
        line = record.decode("latin-1")
        reads = [used for used in _names(_READ, line) if used not in host]
        writes = [used for used in _names(_WRITTEN, line) if used not in host]
        stream = _STREAM.search(line)
        yield Kernel(
            name,
            kind,
            tuple(tensors[used] for used in dict.fromkeys(reads) if used in tensors),
            tuple(tensors[used] for used in dict.fromkeys(writes) if used in tensors),
            bool(writes) and all(used in tensors for used in (*reads, *writes)),
            int(stream[1]) if stream else 0,
        )


def _sizes(text: ProgramText, batch: int) -> Mapping[str, int]:
    """The named sizes at `batch`, which is the one size that the steps read and do not compute."""
    steps = [(step[1], step[2]) for step in _STEP.finditer(text.sizes.decode("latin-1"))]
    computed = {name for _, line in steps for name in _names(_WRITTEN, line)}
    given = {name for _, line in steps for name in _names(_READ, line)} - computed
    sizes = dict.fromkeys(given, batch) if len(given) == 1 else {}
    for kind, line in steps:
        value = _step(kind, line, sizes)
        if value is not None and abs(value) < _LARGEST:
            sizes |= dict.fromkeys(_names(_WRITTEN, line), value)
    return sizes


def _step(kind: str, line: str, sizes: Mapping[str, int]) -> int | None:
    literal = _LITERAL.search(line)
    if kind == "memset" and literal is not None:
        return int(literal[1])
    try:
        return int(_STEPS[kind](*(sizes[name] for name in _names(_READ, line))))
    except (KeyError, TypeError, ZeroDivisionError):  # a size that is unknown, or a step that is none of these
        return None


def _tensors(text: ProgramText, sizes: Mapping[str, int]) -> tuple[dict[str, Tensor], set[str]]:
    """The tensors whose size is known, and the names of those that lie in the host's memory."""
    tensors: dict[str, Tensor] = {}
    host: set[str] = set()
    for entry in _TENSOR.finditer(text.tensors.decode("latin-1")):
        name, dims, dtype = (pattern.search(entry[1]) for pattern in (_NAME, _DIMS, _TYPE))
        if name is None or dims is None or dtype is None:
            continue
        label = name[1] or name[2]
        if _HOST.search(entry[1]):
            host.add(label)
        shape = [int(dim[2]) if dim[2] else sizes.get(dim[1], -1) for dim in _DIM.finditer(dims[1])]
        if len(shape) <= _RANK and min(shape, default=0) >= 0 and dtype[1] in _BYTES:
            view = _VIEW.search(entry[1])
            place = f"{view[1]} at {view[2]}" if view else f"{label} at 0"
            tensors[label] = Tensor(place, tuple(shape), dtype[1], "const_payload_size=" in entry[1])
    return tensors, host


def _names(pattern: re.Pattern[str], line: str) -> list[str]:
    found = pattern.search(line)
    return _QUOTED.findall(found[1]) if found else []
