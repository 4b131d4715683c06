"""The bounds of an engine on cards, as plain values for people and for JSON."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

from evodeploy.inspection.roofline.bound import LAUNCH, Bound, Network, bound, kernel_times
from evodeploy.inspection.roofline.cards import Card
from evodeploy.inspection.roofline.plan import PlanWork


def rooflines(work: PlanWork, cards: Sequence[Card], *, kernels: bool = False) -> dict[str, Any]:
    """What `work` needs at least on each of `cards`; `kernels` adds each kernel at the last batch."""
    record = work.record
    return {
        "file": str(work.path),
        "model": record.model.model if record.model else None,
        "precision": record.precision,
        "built_for": list(record.targets) or [record.architecture],
        "not_counted": work.missing,
        "weights_bytes": work.weights,
        "launch_us": LAUNCH * 1e6,
        "cards": [_on(card, work, kernels) for card in cards],
    }


def _on(card: Card, work: PlanWork, kernels: bool) -> dict[str, Any]:
    tf32 = work.record.tf32 is not False
    built_for = work.record.targets or (work.record.architecture,)
    each = {"kernels": _kernels(work.networks[-1], card, tf32)} if kernels else {}
    return {
        "card": card.name,
        "title": card.title,
        "architecture": card.architecture,
        "built_for_it": card.architecture in built_for,
        "multiprocessors": card.multiprocessors,
        "bandwidth_gb_per_second": card.bandwidth,
        "l2_mib": card.l2,
        "tflops": {name: rate for name, rate in dataclasses.asdict(card.rates).items() if rate is not None},
        "peaks_used": dict(card.peak(rate, tf32=tf32) for rate in work.rates),
        "source": card.source,
        "batches": [_at(network, bound(network, card, tf32=tf32)) for network in work.networks],
        **each,
    }


def _at(network: Network, found: Bound) -> dict[str, Any]:
    return {
        "batch": found.batch,
        "launched": len(network.kernels),
        "gflop": sum(work.operations for work in network.kernels) / 1e9,
        "megabytes": sum(work.moved for work in network.kernels) / 1e6,
        "least_ms": found.least * 1e3,
        "images_per_second_at_most": _rate(found.batch, found.least),
        "limit": found.limit,
        "arithmetic_ms": found.arithmetic * 1e3,
        "memory_ms": found.memory * 1e3,
        "uncached_ms": found.uncached * 1e3,
        "uncached_images_per_second": _rate(found.batch, found.uncached),
        "uncached_memory_share": found.uncached_memory / found.uncached if found.uncached else None,
        "launching_ms": found.launching * 1e3,
    }


def _rate(batch: int, seconds: float) -> float | None:
    return batch / seconds if seconds else None


def _kernels(network: Network, card: Card, tf32: bool) -> list[dict[str, Any]]:
    """All kernels, equal ones together, by the time that they take without caches."""
    times = collections.Counter(kernel_times(network, card, tf32=tf32))
    whole = sum(time.seconds * count for time, count in times.items())
    ranked = sorted(times.items(), key=lambda entry: -entry[0].seconds * entry[1])
    return [
        {
            "name": time.work.name,
            "kind": time.work.kind,
            "times": count,
            "gflop": time.work.operations / 1e9,
            "megabytes": time.work.moved / 1e6,
            "uncached_us": time.seconds * 1e6,
            "limit": time.limit,
            "share": time.seconds * count / whole,
        }
        for time, count in ranked
    ]
