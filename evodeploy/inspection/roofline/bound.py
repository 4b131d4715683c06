"""The least time of one batch on a card: a lower bound for every run, and an estimate without any cache.

Two things limit a run. All products must be computed, at no more than the card's published rate. And data that the L2
cache cannot hold must cross the memory bus. For the network's weights, input and output together, this is the part that
exceeds the cache, because the cache may still hold the rest from the previous run. The same is true for a kernel's
operands, and for its results. Kernels of one stream run one after another, so their bounds add up. Those of different
streams may overlap and share what they read, so the longest stream counts, and the products of all streams. The bound
is for one batch at a time: with several in flight, kernels of different batches overlap, and weights may be read once
for two batches. The bytes of fused kernels are not part of the bound, because they may read only parts of an operand.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from evodeploy.inspection.listing import PRODUCTS
from evodeploy.inspection.roofline.cards import Card
from evodeploy.inspection.roofline.work import Work

# Seconds that the host needs to launch one kernel without CUDA graphs: 2.6 to 2.8 µs for an asynchronous launch on
# Linux under WSL2, RTX 5070 Ti Laptop, CUDA 13.3 (github.com/ahrefs/ocannl/issues/488). An assumption, not a bound.
LAUNCH = 2.5e-6


@dataclass(frozen=True)
class Network:
    """An engine's work on one batch: its kernels, and `outside`, the total bytes of weights, input and output."""

    batch: int
    kernels: Sequence[Work]
    outside: int


@dataclass(frozen=True)
class Bound:
    """Seconds of one batch on one card. `least` is the bound.

    `arithmetic` is the time of all products at the peak rate, `memory` that of the bytes that must cross the memory
    bus. `uncached` is the time if every kernel reads all operands from memory and writes all results to it, and
    `uncached_memory` the part of it in kernels that are limited by memory. `launching` is the time that the host needs
    to launch the kernels one by one.
    """

    batch: int
    least: float
    arithmetic: float
    memory: float
    uncached: float
    uncached_memory: float
    launching: float

    @property
    def limit(self) -> str:
        """The larger part of the bound, `memory` or `arithmetic`."""
        return "memory" if self.memory > self.arithmetic else "arithmetic"


@dataclass(frozen=True)
class KernelTime:
    """A kernel's least seconds without any cache, and whether `memory` or `arithmetic` limits them."""

    work: Work
    seconds: float
    limit: str


def bound(network: Network, card: Card, *, tf32: bool) -> Bound:
    """Return the least time of `network` on `card`; raises UsageError if the card lacks a precision that it needs."""
    products = [_arithmetic(work, card, tf32=tf32) for work in network.kernels]
    spilled = [_spilled(work, card) for work in network.kernels]
    outside = max(0, network.outside - card.cache) / card.bytes_per_second
    alone = kernel_times(network, card, tf32=tf32)
    each = [max(pair) for pair in zip(products, spilled, strict=True)]
    return Bound(
        network.batch,
        max(outside, sum(products), _longest(network, each)),
        sum(products),
        max(outside, _longest(network, spilled)),
        sum(time.seconds for time in alone),
        sum(time.seconds for time in alone if time.limit == "memory"),
        len(network.kernels) * LAUNCH,
    )


def kernel_times(network: Network, card: Card, *, tf32: bool) -> list[KernelTime]:
    """Return the time of each kernel alone, as if the caches were empty before it and written back after it."""
    times = []
    for work in network.kernels:
        arithmetic, memory = _arithmetic(work, card, tf32=tf32), work.moved / card.bytes_per_second
        times.append(KernelTime(work, max(arithmetic, memory), "memory" if memory > arithmetic else "arithmetic"))
    return times


def _longest(network: Network, seconds: Sequence[float]) -> float:
    """Add up `seconds` by stream, and return the largest sum."""
    streams: defaultdict[int, float] = defaultdict(float)
    for work, each in zip(network.kernels, seconds, strict=True):
        streams[work.stream] += each
    return max(streams.values(), default=0.0)


def _arithmetic(work: Work, card: Card, *, tf32: bool) -> float:
    return work.operations / card.per_second(work.rate, tf32=tf32) if work.operations else 0.0


def _spilled(work: Work, card: Card) -> float:
    """Return the seconds to move what exceeds the L2 of a product's operands at its start, and results at its end."""
    if work.kind not in PRODUCTS or work.missing:
        return 0.0
    return (max(0, work.read - card.cache) + max(0, work.written - card.cache)) / card.bytes_per_second
