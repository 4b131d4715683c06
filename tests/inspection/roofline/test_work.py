from __future__ import annotations

import pytest

from evodeploy.inspection.listing import Kernel, Tensor
from evodeploy.inspection.roofline.work import weights_of, work_of


def tensor(*shape, name="t", dtype="half", constant=False):
    return Tensor(f"{name} at 0", shape, dtype, constant)


def kernel(kind, reads, writes, *, whole=True):
    return Kernel(f"a_{kind}", kind, tuple(reads), tuple(writes), whole)


BIAS = tensor(1, 12, name="bias", constant=True)
WEIGHT = tensor(32, 12, name="weight", constant=True)


@pytest.mark.parametrize(
    ("kind", "reads", "written", "operations"),
    [
        ("gemm", [BIAS, tensor(10, 32, name="x"), WEIGHT], tensor(10, 12, name="y"), 2 * 10 * 32 * 12),
        ("gemm", [tensor(4, 5, 32, name="x"), WEIGHT], tensor(20, 12, name="y"), 2 * 20 * 32 * 12),
        ("gemm", [tensor(3, 5, 7, name="x"), tensor(3, 7, 9, name="w")], tensor(3, 5, 9, name="y"), 2 * 3 * 5 * 7 * 9),
        # The sum that is added has the shape of a factor.
        ("gemm", [tensor(12, 12, name="sum"), tensor(12, 32, name="x"), WEIGHT], tensor(12, 12, name="y"),
         2 * 12 * 32 * 12),
        ("convolution", [tensor(2, 4, 8, 8, name="x"), tensor(6, 4, 3, 3, name="w", constant=True)],
         tensor(2, 6, 4, 4, name="y"), 2 * (2 * 6 * 4 * 4) * (4 * 3 * 3)),
        ("attention", [tensor(6, 5, 32, name="q"), tensor(6, 32, 9, name="k"), tensor(6, 9, 16, name="v")],
         tensor(6, 5, 16, name="y"), 2 * 6 * 5 * 9 * (32 + 16)),
    ],
)  # fmt: skip
def test_products_are_counted_from_their_shapes(kind, reads, written, operations):
    work = work_of(kernel(kind, reads, [written]))
    assert (work.operations, work.rate, work.missing) == (operations, "fp16", "")
    assert work.read == sum(each.nbytes for each in reads) and work.written == written.nbytes
    assert work.moved == work.read + work.written


@pytest.mark.parametrize(
    ("dtype", "rate"), [("half", "fp16"), ("bf16", "bf16"), ("float", "fp32"), ("int8", "int8"), ("fp8_e4m3", "fp8")]
)
def test_the_rate_is_that_of_the_factors(dtype, rate):
    reads = [tensor(10, 32, name="x", dtype=dtype), tensor(32, 12, name="w", dtype=dtype, constant=True)]
    assert work_of(kernel("gemm", reads, [tensor(10, 12, name="y", dtype="float")])).rate == rate


@pytest.mark.parametrize("kind", ["gemm", "convolution", "attention"])
def test_a_product_of_shapes_that_do_not_fit_is_not_counted(kind):
    work = work_of(kernel(kind, [tensor(10, 32, name="x"), tensor(31, 12, name="w")], [tensor(10, 12, name="y")]))
    assert (work.operations, work.missing) == (0, "operations")


def test_an_image_is_no_filter():
    """It has as many pictures as the result has channels, and what is added comes before it."""
    image, weight = tensor(6, 4, 8, 8, name="x"), tensor(6, 4, 3, 3, name="w", constant=True)
    result = tensor(6, 6, 8, 8, name="y")
    work = work_of(kernel("convolution", [tensor(6, 6, 8, 8, name="sum"), image, weight], [result]))
    assert work.operations == 2 * result.elements * 4 * 3 * 3


def test_what_is_unknown_is_named():
    assert work_of(kernel("fused", [BIAS], [], whole=False)).missing == "bytes"
    assert work_of(kernel("gemm", [BIAS], [], whole=False)).missing == "bytes and operations"
    assert work_of(kernel("gemm", [tensor(2, 4, dtype="int32"), tensor(4, 3, name="w", dtype="int32")],
                          [tensor(2, 3, name="y")])).missing == "operations"  # fmt: skip


def test_the_same_bytes_count_once():
    work = work_of(kernel("fused", [tensor(4, 5, name="x"), tensor(20, name="x"), BIAS], [tensor(4, name="y")]))
    assert (work.read, work.written, work.operations) == (2 * 20 + 2 * 12, 8, 0)


def test_weights_count_once():
    kernels = [kernel("gemm", [tensor(10, 32, name="x"), WEIGHT, BIAS], [tensor(10, 12)])] * 2
    assert weights_of(kernels) == 2 * (32 * 12 + 12)
