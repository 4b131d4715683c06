"""A bench's rows as JSON and as a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from evodeploy.bench.candidates import Subject
from evodeploy.bench.environment import Environment
from evodeploy.bench.run import Row

SCHEMA = 1


def as_json(subject: Subject, rows: Sequence[Row], machine: Environment) -> dict[str, Any]:
    """One document: what was measured, on what, and one object a row under `results`; times are in milliseconds."""
    return {
        "schema": SCHEMA,
        "model": subject.name,
        "notes": list(subject.notes),
        "environment": dataclasses.asdict(machine),
        "results": [_result(row) for row in rows],
    }


def _result(row: Row) -> dict[str, Any]:
    values: dict[str, Any] = {
        "engine": row.engine,
        "model": row.role,
        "precision": row.precision,
        "artefact": row.artefact,
        "device": row.device,
        "batch": row.batch,
        "status": "ok" if row.timing else "unavailable",
    }
    if row.timing is None:
        return values | {"reason": row.reason}
    return values | {
        "images_per_second": row.images_per_second,
        "ratio_to_torch": row.ratio,
        "median_ms": row.timing.median * 1e3,
        "p90_ms": row.timing.p90 * 1e3,
        "spread": row.timing.spread,
        "samples_ms": [sample * 1e3 for sample in row.timing.samples],
        "warmup_ms": [sample * 1e3 for sample in row.timing.warmup],
    }


def as_table(rows: Sequence[Row]) -> Table:
    """One line a row, the batch sizes apart; rows that could not run say why under the table (`reasons`)."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("batch", "engine", "model", "precision", "img/s", "× torch", "median ms", "p90 ms", "spread"):
        table.add_column(heading, justify="left" if heading in ("engine", "model", "precision") else "right")
    previous = None
    for row in rows:
        if previous is not None and row.batch != previous:
            table.add_section()
            table.add_row()
        previous = row.batch
        first = [str(row.batch), row.engine, row.role, row.precision]
        if row.timing is None:
            table.add_row(*first, "–", "–", "–", "–", "–", style="dim")
            continue
        ratio = "–" if row.ratio is None else f"{row.ratio:.2f}"
        timing = row.timing
        table.add_row(
            *first,
            f"{row.images_per_second:.1f}",
            ratio,
            f"{timing.median * 1e3:.1f}",
            f"{timing.p90 * 1e3:.1f}",
            f"{timing.spread:.1%}",
        )
    return table


def reasons(rows: Sequence[Row]) -> list[str]:
    """Why rows are empty, each said once."""
    return list(dict.fromkeys(f"{row.engine} ({row.role}): {row.reason}" for row in rows if row.timing is None))
