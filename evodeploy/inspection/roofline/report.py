"""The bounds of an engine on cards, as records, as plain values for JSON, and as text."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evodeploy.inspection.roofline.bound import LAUNCH, Bound, KernelTime, Network
from evodeploy.inspection.roofline.cards import Card
from evodeploy.text import WIDE, brief, plain, rich_table

if TYPE_CHECKING:
    from rich.table import Table

HEAVIEST = 10  # kernels to print
NAME = 48  # the most characters of a kernel's name
_UNITS = {"int8": "TOP/s"}  # all others are TFLOP/s


@dataclass(frozen=True)
class KernelShare:
    """A number, `times`, of equal kernels. One takes `time`; all take `share` of the network's time without caches."""

    time: KernelTime
    times: int
    share: float

    @classmethod
    def each(cls, times: Iterable[KernelTime]) -> tuple[KernelShare, ...]:
        """Group equal kernels, and sort the groups by the time that they take."""
        counts = collections.Counter(times)
        whole = sum(time.seconds * count for time, count in counts.items())
        ranked = sorted(counts.items(), key=lambda entry: -entry[0].seconds * entry[1])
        return tuple(cls(time, count, time.seconds * count / whole) for time, count in ranked)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        work = self.time.work
        return {
            "name": work.name,
            "kind": work.kind,
            "times": self.times,
            "gflop": work.operations / 1e9,
            "megabytes": work.moved / 1e6,
            "uncached_us": self.time.seconds * 1e6,
            "limit": self.time.limit,
            "share": self.share,
        }


@dataclass(frozen=True)
class CardBounds:
    """The bounds on one card, one for each batch. `peaks` are the TFLOP/s, TOP/s for INT8, of the engine's products.

    `kernels` are those at the last batch, or None if they were not asked for.
    """

    card: Card
    peaks: Mapping[str, float]
    bounds: tuple[Bound, ...]
    kernels: tuple[KernelShare, ...] | None = None


@dataclass(frozen=True)
class Roofline:
    """Lower bounds for the engine `path` on `cards`; as a string it is the output of `evodeploy inspect --gpu`.

    `networks` is its work, one entry for each batch. `weights` is an upper bound on the bytes of its weights.
    `not_counted` maps the names of kernels that are counted in part or not at all to what is missing. `keep` is the
    number of tokens that each stage of an elastic engine keeps; it is empty for any other engine.
    """

    path: Path
    model: str | None
    precision: str
    built_for: tuple[str, ...]
    weights: int
    networks: tuple[Network, ...]
    not_counted: Mapping[str, str]
    cards: tuple[CardBounds, ...]
    keep: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as plain values for JSON."""
        return {
            "file": str(self.path),
            "model": self.model,
            "precision": self.precision,
            "keep": list(self.keep),
            "built_for": list(self.built_for),
            "not_counted": dict(self.not_counted),
            "weights_bytes": self.weights,
            "launch_us": LAUNCH * 1e6,
            "cards": [self._as_dict(each) for each in self.cards],
        }

    def __str__(self) -> str:
        kept = f", {'/'.join(map(str, self.keep))} tokens kept" if self.keep else ""
        lines = [f"{self.path}: {self.precision}{kept}. Bounds from published peaks, not predictions."]
        for each in self.cards:
            lines += ["", _heading(each), plain(_bounds(each.bounds, self.networks), WIDE)]
            if each.kernels is not None:
                lines += ["", f"heaviest kernels at batch {each.bounds[-1].batch}, without caches"]
                lines.append(plain(_kernels(each.kernels[:HEAVIEST]), WIDE))
        return "\n".join([*lines, "", *self._remarks()])

    def _remarks(self) -> Iterator[str]:
        yield "at least: all products at the dense peak, and through the memory's bus what the"
        yield "  L2 cannot hold"
        yield "without caches: an estimate, where each kernel reads its operands from memory"
        yield "  and writes its results to it"
        yield f"launching: by the host, {LAUNCH * 1e6:g} µs a kernel assumed; a CUDA graph takes most of"
        yield "  it away"
        for name, missing in self.not_counted.items():
            yield f"not counted: {missing} of {name}, so the bound is lower than it could be"

    def _as_dict(self, each: CardBounds) -> dict[str, Any]:
        card = each.card
        kernels = {} if each.kernels is None else {"kernels": [kernel.to_dict() for kernel in each.kernels]}
        return {
            "card": card.name,
            "title": card.title,
            "architecture": card.architecture,
            "built_for_it": card.architecture in self.built_for,
            "multiprocessors": card.multiprocessors,
            "bandwidth_gb_per_second": card.bandwidth,
            "l2_mib": card.l2,
            "tflops": {name: rate for name, rate in dataclasses.asdict(card.rates).items() if rate is not None},
            "peaks_used": dict(each.peaks),
            "source": card.source,
            "batches": [_row(found, network) for found, network in zip(each.bounds, self.networks, strict=True)],
        } | kernels


def _row(found: Bound, network: Network) -> dict[str, Any]:
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


def _heading(each: CardBounds) -> str:
    card = each.card
    peaks = (f"{name.upper()} {peak:g} {_UNITS.get(name, 'TFLOP/s')}" for name, peak in each.peaks.items())
    facts = (card.title, card.architecture, f"{card.bandwidth:g} GB/s", *peaks, f"L2 {card.l2:g} MiB")
    return f"{card.name}: {', '.join(facts)}"


def _bounds(bounds: Iterable[Bound], networks: Iterable[Network]) -> Table:
    rows = [_row(found, network) for found, network in zip(bounds, networks, strict=True)]
    table = rich_table(["batch", *(str(row["batch"]) for row in rows)], ["batch"])
    for heading, text in (
        ("at least, µs", lambda row: _micro(row["least_ms"])),
        ("img/s at most", lambda row: _count(row["images_per_second_at_most"])),
        ("limited by", lambda row: row["limit"]),
        ("  arithmetic, µs", lambda row: _micro(row["arithmetic_ms"])),
        ("  memory, µs", lambda row: _micro(row["memory_ms"])),
        ("without caches, µs", lambda row: _micro(row["uncached_ms"])),
        ("  img/s", lambda row: _count(row["uncached_images_per_second"])),
        ("  limited by memory", lambda row: _share(row["uncached_memory_share"])),
        ("kernels", lambda row: str(row["launched"])),
        ("launching, µs", lambda row: _micro(row["launching_ms"])),
        ("  over at least", lambda row: f"{row['launching_ms'] / row['least_ms']:.2f}" if row["least_ms"] else "–"),
    ):
        table.add_row(heading, *(text(row) for row in rows))
    return table


def _kernels(kernels: Iterable[KernelShare]) -> Table:
    table = rich_table(("kernel", "times", "kind", "GFLOP", "MB", "µs", "of all", "limited by"), ["kernel"])
    for row in (kernel.to_dict() for kernel in kernels):
        table.add_row(
            brief(row["name"], NAME),
            str(row["times"]),
            row["kind"],
            f"{row['gflop']:.2f}",
            f"{row['megabytes']:.1f}",
            f"{row['uncached_us']:.1f}",
            f"{row['share']:.0%}",
            row["limit"],
        )
    return table


def _micro(milliseconds: float) -> str:
    return f"{milliseconds * 1e3:,.1f}"


def _count(rate: float | None) -> str:
    return "–" if rate is None else f"{rate:,.0f}"


def _share(share: float | None) -> str:
    return "–" if share is None else f"{share:.0%}"
