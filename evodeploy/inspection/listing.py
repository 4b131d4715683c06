"""The tensors that each kernel of a plan's GPU program reads and writes, with their sizes for one batch.

Sizes that depend on the batch have names. The plan computes them from the batch in a list of integer steps, and so does
this module. In an elastic engine they also depend on the numbers of kept tokens. Anything that this module cannot read
is left out, and the kernels that need it are marked.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
_HOST = re.compile(r'(?<!\w)region="?\w*hmem')  # host memory, which holds sizes
_STREAM = re.compile(r"(?<!\w)stream=(\d{1,9})(?!\d)")
_LITERAL = re.compile(r'(?<!\w)src="(-?\d{1,18})i\d+"')
_LARGEST = 2**63
_RANK = 8  # the most axes of a tensor
PRODUCTS = {"gemm", "convolution", "attention"}  # kinds of kernels
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
    """A tensor in GPU memory that a kernel reads or writes; `constant` tensors are weights.

    Tensors with the same `place` and size are the same bytes, even if their shapes differ.
    """

    place: str
    shape: tuple[int, ...]
    dtype: str
    constant: bool

    @property
    def elements(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The size in bytes."""
        return self.elements * _BYTES[self.dtype]


@dataclass(frozen=True)
class Kernel:
    """A kernel of one inference. It is not `whole` if the size of a tensor that it reads or writes is unknown.

    Kernels of the same `stream` run one after another; those of different streams may overlap.
    """

    name: str
    kind: str
    reads: tuple[Tensor, ...]
    writes: tuple[Tensor, ...]
    whole: bool
    stream: int = 0


def kernels_of(texts: Iterable[ProgramText], batch: int, keep: Sequence[int] = ()) -> list[Kernel]:
    """Return the kernels of a profile's programs for `batch` images, in execution order.

    The stages of an elastic engine keep `keep` tokens.
    """
    return [kernel for text in texts for kernel in _kernels(text, batch, tuple(keep))]


def _kernels(text: ProgramText, batch: int, keep: tuple[int, ...]) -> Iterator[Kernel]:
    tensors, host = _tensors(text, _sizes(text, batch, keep))
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


def _sizes(text: ProgramText, batch: int, keep: tuple[int, ...]) -> Mapping[str, int]:
    """Compute the named sizes from `batch` and `keep`, the only ones that the steps read and do not compute."""
    steps = [(step[1], step[2]) for step in _STEP.finditer(text.sizes.decode("latin-1"))]
    computed = {name for _, line in steps for name in _names(_WRITTEN, line)}
    given = list(dict.fromkeys(name for _, line in steps for name in _names(_READ, line) if name not in computed))
    if keep:  # if there are more than these, their meanings are unknown
        given = _in_order(text, steps, given) if len(given) <= 1 + len(keep) else []
    numbers = keep if len(given) == len(keep) else (batch, *keep)
    sizes = dict(zip(given, numbers, strict=True)) if len(given) == len(numbers) else {}
    for kind, line in steps:
        value = _step(kind, line, sizes)
        if value is not None and abs(value) < _LARGEST:
            sizes |= dict.fromkeys(_names(_WRITTEN, line), value)
    return sizes


def _in_order(text: ProgramText, steps: list[tuple[str, str]], given: list[str]) -> list[str]:
    """Sort the sizes `given` by the first product that depends on each: the batch, then each stage.

    A stage's products come after those of earlier stages, whose tokens they read. Returns an empty list if two sizes
    first occur in the same product.
    """
    behind: dict[str, frozenset[str]] = {name: frozenset({name}) for name in given}
    for _, line in steps:
        sources = frozenset().union(*(behind.get(name, frozenset()) for name in _names(_READ, line)))
        behind |= dict.fromkeys(_names(_WRITTEN, line), sources)
    dims = {label: [dim[1] for dim in _DIM.finditer(sizes)] for label, sizes, _ in _entries(text)}
    ordered: dict[str, None] = {}
    for kind, _, record in records_of(text.kernels):
        line = record.decode("latin-1")
        if kind in PRODUCTS:
            tensors = (*_names(_READ, line), *_names(_WRITTEN, line))
            needed = [behind.get(dim, frozenset()) for tensor in tensors for dim in dims.get(tensor, ())]
            new = frozenset().union(*needed) - set(ordered)
            if len(new) > 1:
                return []
            ordered |= dict.fromkeys(new)
    return list(ordered)


def _step(kind: str, line: str, sizes: Mapping[str, int]) -> int | None:
    literal = _LITERAL.search(line)
    if kind == "memset" and literal is not None:
        return int(literal[1])
    try:
        return int(_STEPS[kind](*(sizes[name] for name in _names(_READ, line))))
    except (KeyError, TypeError, ZeroDivisionError):  # an unknown size, or an unknown kind of step
        return None


def _tensors(text: ProgramText, sizes: Mapping[str, int]) -> tuple[dict[str, Tensor], set[str]]:
    """Return the tensors whose sizes are known, and the names of those in host memory."""
    tensors: dict[str, Tensor] = {}
    host: set[str] = set()
    for label, dims, entry in _entries(text):
        dtype = _TYPE.search(entry)
        if dtype is None:
            continue
        if _HOST.search(entry):
            host.add(label)
        shape = [int(dim[2]) if dim[2] else sizes.get(dim[1], -1) for dim in _DIM.finditer(dims)]
        if len(shape) <= _RANK and min(shape, default=0) >= 0 and dtype[1] in _BYTES:
            view = _VIEW.search(entry)
            place = f"{view[1]} at {view[2]}" if view else f"{label} at 0"
            tensors[label] = Tensor(place, tuple(shape), dtype[1], "const_payload_size=" in entry)
    return tensors, host


def _entries(text: ProgramText) -> Iterator[tuple[str, str, str]]:
    """Yield the name, the sizes and the whole text of each tensor."""
    for entry in _TENSOR.finditer(text.tensors.decode("latin-1")):
        name, dims = _NAME.search(entry[1]), _DIMS.search(entry[1])
        if name is not None and dims is not None:
            yield name[1] or name[2], dims[1], entry[1]


def _names(pattern: re.Pattern[str], line: str) -> list[str]:
    found = pattern.search(line)
    return _QUOTED.findall(found[1]) if found else []
