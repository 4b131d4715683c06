from __future__ import annotations

import pytest

from evodeploy.inspection.roofline.bound import LAUNCH, Network, bound, kernel_times
from evodeploy.inspection.roofline.cards import Card, Rates
from evodeploy.inspection.roofline.work import Work

MB = 10**6
# A second moves 100 GB and computes 10 T operations in FP16, 5 in TF32; 1 MiB stays in the cache.
CARD = Card("c", "a card", "sm89", 1, 100, 1, Rates(1, 5, 10, None, 20, None), "NVIDIA, a test")
CACHE = 2**20


def gemm(operations=0, read=0, written=0, kind="gemm", rate="fp16", missing="", stream=0):
    return Work("k", kind, operations, rate, read, written, missing, stream)


def bounded(*works, outside=0, tf32=True):
    return bound(Network(4, works, outside), CARD, tf32=tf32)


def test_products_take_the_time_of_the_peak_rate():
    found = bounded(gemm(10**9), gemm(3 * 10**9))
    assert found.least == found.arithmetic == pytest.approx(4e-4)
    assert (found.memory, found.limit) == (0, "arithmetic")


def test_what_the_cache_holds_does_not_cross_the_bus():
    assert bounded(gemm(1, read=CACHE, written=CACHE), outside=CACHE).memory == 0
    found = bounded(gemm(1, read=CACHE + 2 * MB, written=CACHE + MB))
    assert found.memory == pytest.approx(3e-5) and found.limit == "memory"
    assert found.least == pytest.approx(3e-5)


def test_weights_input_and_output_cross_the_bus_once():
    found = bounded(gemm(10**6), outside=CACHE + 5 * MB)
    assert found.least == found.memory == pytest.approx(5e-5)


def test_kernels_run_one_after_the_other():
    """One waits for memory, the other for products: neither hides the other."""
    found = bounded(gemm(10**9), gemm(1, read=CACHE + 5 * MB))
    assert found.least == pytest.approx(1e-4 + 5e-5)


def test_kernels_of_two_streams_may_overlap():
    """One waits for memory while the other computes; but products share the units, whatever their stream."""
    slow, waiting = gemm(10**9), gemm(1, read=CACHE + 5 * MB, stream=1)
    found = bounded(slow, waiting)
    assert found.least == pytest.approx(1e-4) and found.memory == pytest.approx(5e-5)
    assert bounded(slow, gemm(10**9, stream=1)).least == pytest.approx(2e-4)
    both = gemm(1, read=CACHE + 5 * MB)  # of what both read, a byte crosses the bus once
    assert bounded(both, waiting).least == pytest.approx(5e-5)


@pytest.mark.parametrize("works", [gemm(read=9 * MB, kind="fused", rate=""), gemm(1, read=9 * MB, missing="bytes")])
def test_bytes_that_may_not_be_read_are_in_the_estimate_alone(works):
    found = bounded(works)
    assert found.memory == 0 and found.uncached == pytest.approx(9e-5)


def test_without_caches_every_byte_crosses_the_bus():
    slow, fast = gemm(10**9, read=MB, written=MB), gemm(10**7, read=MB, written=MB)
    found = bounded(slow, fast)
    assert found.uncached == pytest.approx(1e-4 + 2e-5)
    assert found.uncached_memory == pytest.approx(2e-5)
    assert [time.limit for time in kernel_times(Network(4, (slow, fast), 0), CARD, tf32=True)] == [
        "arithmetic",
        "memory",
    ]
    assert found.least <= found.uncached


def test_fp32_products_depend_on_tf32():
    assert bounded(gemm(10**9, rate="fp32")).least == pytest.approx(2e-4)
    assert bounded(gemm(10**9, rate="fp32"), tf32=False).least == pytest.approx(1e-3)


def test_each_kernel_is_launched():
    assert bounded(*[gemm(1)] * 100).launching == pytest.approx(100 * LAUNCH)
