"""The work of a kernel: operations in matrix products, and bytes of its operands and results."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from evodeploy.inspection.listing import PRODUCTS, Kernel, Tensor

RATES = {"half": "fp16", "bf16": "bf16", "float": "fp32", "int8": "int8", "fp8_e4m3": "fp8"}  # by a plan's types


@dataclass(frozen=True)
class Work:
    """A kernel's work on one batch: `operations` in the precision `rate`, bytes read and written.

    Each operand and each result counts once. Operations are those of matrix products, convolutions and attentions, with
    a multiply-add as two; element-wise work counts as none. `missing` names what could not be counted. Kernels of the
    same `stream` run one after another.
    """

    name: str
    kind: str
    operations: int
    rate: str
    read: int
    written: int
    missing: str = ""
    stream: int = 0

    @property
    def moved(self) -> int:
        """Bytes read and written."""
        return self.read + self.written


def work_of(kernel: Kernel) -> Work:
    """Return the work of `kernel`."""
    product = _PRODUCTS[kernel.kind](kernel) if kernel.kind in PRODUCTS else (0, "")
    operations, dtype = product or (0, "")
    rate = RATES.get(dtype, "")
    missing = [] if kernel.whole else ["bytes"]
    if kernel.kind in PRODUCTS and not rate:
        operations, missing = 0, [*missing, "operations"]
    read, written = (_nbytes(used) for used in (kernel.reads, kernel.writes))
    return Work(kernel.name, kernel.kind, operations, rate, read, written, " and ".join(missing), kernel.stream)


def weights_of(kernels: Iterable[Kernel]) -> int:
    """Return the bytes of all weights that the kernels read, each counted once."""
    return _nbytes(tensor for kernel in kernels for tensor in kernel.reads if tensor.constant)


def _nbytes(tensors: Iterable[Tensor]) -> int:
    return sum(nbytes for _, nbytes in {(tensor.place, tensor.nbytes) for tensor in tensors})


def _gemm(kernel: Kernel) -> tuple[int, str] | None:
    """Count M x K by K x N. Weights are tried first, because an operand of a fused sum may have a factor's shape."""
    matrices = sorted((each for each in kernel.reads if len(each.shape) > 1), key=lambda each: not each.constant)
    for result in kernel.writes:
        for right in matrices:
            for left in kernel.reads:
                if left is not right and _fits(left, right, result):
                    return 2 * result.elements * left.shape[-1], left.dtype
    return None


def _fits(left: Tensor, right: Tensor, result: Tensor) -> bool:
    if not left.shape or not result.shape or right.shape[-2:] != (left.shape[-1], result.shape[-1]):
        return False
    batches = right.shape[:-2]
    rows = math.prod(left.shape[:-1])
    return rows == math.prod(result.shape[:-1]) and (not batches or batches == result.shape[: len(batches)])


def _convolution(kernel: Kernel) -> tuple[int, str] | None:
    """Count a constant filter (outputs, inputs of a group, height, width) at each element of the result."""
    for result in kernel.writes:
        for image, weight in zip(kernel.reads, kernel.reads[1:], strict=False):
            shapes = (image.shape, weight.shape, result.shape)
            if all(len(shape) == 4 for shape in shapes) and weight.constant and weight.shape[0] == result.shape[1]:
                return 2 * result.elements * math.prod(weight.shape[1:]), image.dtype
    return None


def _attention(kernel: Kernel) -> tuple[int, str] | None:
    """Count queries by keys, and the softmax of these by values; heads are the first axis, and keys are transposed."""
    for result in kernel.writes:
        if len(kernel.reads) < 3 or any(len(each.shape) != 3 for each in (*kernel.reads[:3], result)):
            continue
        query, key, value = kernel.reads[:3]
        count = value.shape[1]
        if key.shape[1:] == (query.shape[2], count) and result.shape[1:] == (query.shape[1], value.shape[2]):
            return 2 * count * (query.elements + result.elements), query.dtype
    return None


_PRODUCTS = {"gemm": _gemm, "convolution": _convolution, "attention": _attention}
