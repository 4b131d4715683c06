"""`evodeploy inspect ENGINE --gpu CARDS`: what the engine needs at least on GPUs that are not here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from evodeploy.cli.console import note, result, result_json, show
from evodeploy.cli.values import batches, names

if TYPE_CHECKING:
    from rich.table import Table

HEAVIEST = 10  # kernels shown
_UNITS = {"int8": "TOP/s"}  # the others are TFLOP/s
NAME = 48  # characters of a kernel's name, at most


def roofline(file: Path, gpu: str, batch: str | None, *, kernels: bool, as_json: bool) -> None:
    """Print the bound of `file` on each card that `gpu` names."""
    from evodeploy.inspection.roofline.cards import card_named
    from evodeploy.inspection.roofline.plan import plan_work
    from evodeploy.inspection.roofline.report import rooflines

    cards = [card_named(name) for name in names("--gpu", gpu)]
    found = rooflines(plan_work(file, batches(batch) if batch else None), cards, kernels=kernels)
    for card in found["cards"]:
        if not card["built_for_it"]:
            note(
                f"the engine is built for {', '.join(found['built_for'])}, but {card['card']} is "
                f"{card['architecture']}: TensorRT may choose other kernels there"
            )
    if as_json:
        result_json(found)
        return
    result(f"{file}: {found['precision']}. Bounds from published peaks, not predictions.")
    for card in found["cards"]:
        peaks = (f"{name.upper()} {peak:g} {_UNITS.get(name, 'TFLOP/s')}" for name, peak in card["peaks_used"].items())
        bandwidth, cache = f"{card['bandwidth_gb_per_second']:g} GB/s", f"L2 {card['l2_mib']:g} MiB"
        facts = ", ".join((card["title"], card["architecture"], bandwidth, *peaks, cache))
        result(f"\n{card['card']}: {facts}")
        show(_bounds(card["batches"]))
        if kernels:
            result(f"\nheaviest kernels at batch {card['batches'][-1]['batch']}, without caches")
            show(_kernels(card["kernels"][:HEAVIEST]))
    result(
        "\nat least: all products at the dense peak, and through the memory's bus what the\n"
        "  L2 cannot hold\n"
        "without caches: an estimate, where each kernel reads its operands from memory\n"
        "  and writes its results to it\n"
        f"launching: by the host, {found['launch_us']:g} µs a kernel assumed; a CUDA graph takes most of\n"
        "  it away"
    )
    for name, missing in found["not_counted"].items():
        result(f"not counted: {missing} of {name}, so the bound is lower than it could be")


def _bounds(rows: list[dict[str, Any]]) -> Table:
    table = _table("batch", *(str(row["batch"]) for row in rows))
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


def _kernels(rows: list[dict[str, Any]]) -> Table:
    from evodeploy.text import brief

    table = _table("kernel", "times", "kind", "GFLOP", "MB", "µs", "of all", "limited by")
    for row in rows:
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


def _table(first: str, *others: str) -> Table:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(first)
    for heading in others:
        table.add_column(heading, justify="right")
    return table


def _micro(milliseconds: float) -> str:
    return f"{milliseconds * 1e3:,.1f}"


def _count(rate: float | None) -> str:
    return "–" if rate is None else f"{rate:,.0f}"


def _share(share: float | None) -> str:
    return "–" if share is None else f"{share:.0%}"
