"""The least time of one batch on a card: a bound that no run beats, and an estimate without any cache.

Two things bound a run from below. All products must be computed, at most at the card's published rate. And what the L2
cache cannot hold must cross the memory's bus: of the network's weights, input and output all that is larger than the
cache, for the cache may still hold them from the run before; and of a kernel's operands, and of its results, likewise.
Kernels of one stream run one after the other, so their bounds add up; those of two may overlap and share what they
read, so that of several streams the longest counts, and the products of all. One batch is computed at a time: with
several in flight, kernels of different batches overlap, and weights may be read once for two. A fused kernel's bytes
are not in the bound: it may read a part of an operand only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from evodeploy.inspection.listing import PRODUCTS
from evodeploy.inspection.roofline.cards import Card
from evodeploy.inspection.roofline.work import Work

# Seconds that the host takes to launch one kernel without CUDA graphs: 2.6 to 2.8 µs for an asynchronous launch on
# Linux under WSL2, RTX 5070 Ti Laptop, CUDA 13.3 (github.com/ahrefs/ocannl/issues/488). An assumption, not a bound.
LAUNCH = 2.5e-6


@dataclass(frozen=True)
class Network:
    """An engine's work on one batch: its kernels, and the bytes of weights, input and output together."""

    batch: int
    kernels: Sequence[Work]
    outside: int


@dataclass(frozen=True)
class Bound:
    """Seconds of one batch on one card. `least` is the bound.

    `arithmetic` are those of all products at the peak rate, `memory` those of the bytes that must cross the memory's
    bus, `uncached` those where every kernel fetches all operands from memory and writes all results back,
    `uncached_memory` those of them in kernels that memory limits, and `launching` those that the host needs to launch
    the kernels one by one.
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
        """What the bound comes from more."""
        return "memory" if self.memory > self.arithmetic else "arithmetic"


@dataclass(frozen=True)
class KernelTime:
    """A kernel's least seconds without any cache, and whether `memory` or `arithmetic` limits it."""

    work: Work
    seconds: float
    limit: str


def bound(network: Network, card: Card, *, tf32: bool) -> Bound:
    """The least time of `network` on `card`; raises UsageError where the card cannot multiply what it needs."""
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
    """Each kernel by itself, as if the caches were empty before it and written back after it."""
    times = []
    for work in network.kernels:
        arithmetic, memory = _arithmetic(work, card, tf32=tf32), work.moved / card.bytes_per_second
        times.append(KernelTime(work, max(arithmetic, memory), "memory" if memory > arithmetic else "arithmetic"))
    return times


def _longest(network: Network, seconds: Sequence[float]) -> float:
    """The sum of the stream whose kernels take most of `seconds`."""
    streams: defaultdict[int, float] = defaultdict(float)
    for work, each in zip(network.kernels, seconds, strict=True):
        streams[work.stream] += each
    return max(streams.values(), default=0.0)


def _arithmetic(work: Work, card: Card, *, tf32: bool) -> float:
    return work.operations / card.per_second(work.rate, tf32=tf32) if work.operations else 0.0


def _spilled(work: Work, card: Card) -> float:
    """Seconds for what the L2 cannot hold of a product's operands when it begins, and of its results when it ends."""
    if work.kind not in PRODUCTS or work.missing:
        return 0.0
    return (max(0, work.read - card.cache) + max(0, work.written - card.cache)) / card.bytes_per_second
