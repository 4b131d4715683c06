"""A bench as a table for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.table import Table

from evodeploy.benchmark.measure.clocks import Clocks
from evodeploy.benchmark.measure.intervals import Interval
from evodeploy.benchmark.report.report import Report
from evodeploy.benchmark.report.speedups import over_dense, over_eager, over_torch
from evodeploy.benchmark.row import Row
from evodeploy.benchmark.stages import STAGES, EndToEnd
from evodeploy.text import rich_table

WIDEST = 120
GAP = 2  # blanks between columns, the same as in `rich_table`
FOLDING = "engine"  # the column whose cells wrap if even the columns that are always shown do not fit


@dataclass(frozen=True)
class Column:
    """A heading, its cell for a row, and its priority for removal if the table is too wide: the highest goes first."""

    heading: str
    cell: Callable[[Report, Row], str]
    yields: int = 0
    left: bool = False


def as_table(report: Report, width: int) -> Table:
    """Return one line per row and a block for each batch size, at most `width` or 120 characters wide."""
    columns = _fitting(report, min(width, WIDEST))
    table = rich_table([])
    for column, _ in columns:
        folds = column.heading == FOLDING
        table.add_column(column.heading, justify="left" if column.left else "right", no_wrap=not folds, overflow="fold")
    previous = None
    for number, row in enumerate(report.rows):
        if previous not in (None, row.asked):
            table.add_row()
        previous = row.asked
        style = "bold red" if row.wrong else "dim" if row.timing is None else None
        table.add_row(*(cells[number] for _, cells in columns), style=style)
    return table


def stages_table(stages: Sequence[EndToEnd]) -> Table:
    """Return the stages from files to labels: one line per engine, milliseconds of one image in each stage."""
    table = rich_table(("engine", "batch", *STAGES, "img/s", "bottleneck"), ["engine", "bottleneck"], folds=False)
    for one in stages:
        if one.seconds:
            times = [f"{one.seconds[stage] * 1e3:.2f}" for stage in STAGES]
            speed = f"{one.images_per_second:.1f}"
            table.add_row(one.label, str(one.batch), *times, speed, one.bottleneck)
    return table


def filled_columns(report: Report) -> list[tuple[Column, list[str]]]:
    """Return the columns that are not empty, each with its cells."""
    columns = [(column, [column.cell(report, row) for row in report.rows]) for column in COLUMNS]
    return [(column, cells) for column, cells in columns if any(cell not in ("", "–") for cell in cells)]


def _fitting(report: Report, width: int) -> list[tuple[Column, list[str]]]:
    """Return those of `filled_columns` that fit."""
    filled = filled_columns(report)
    while _width(filled) > width and any(column.yields for column, _ in filled):
        filled.remove(max(filled, key=lambda pair: pair[0].yields))
    return filled


def _width(columns: Sequence[tuple[Column, list[str]]]) -> int:
    widest = (max(map(cell_len, (column.heading, *cells))) for column, cells in columns)
    return sum(widest) + GAP * (len(columns) - 1)


def _milliseconds(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds * 1e3:.2f}" if seconds < 0.01 else f"{seconds * 1e3:.1f}"


def _ratio(ratio: Interval | None) -> str:
    return "–" if ratio is None else f"{ratio.value:.2f}"


def _share(share: float | None) -> str:
    return "–" if share is None else f"{share:.0%}"


def _speed(report: Report, row: Row) -> str:
    speed = row.images_per_second
    return "–" if speed is None or row.timing is None else f"{speed.value:.1f}" + ("!" if row.timing.warnings else "")


def _in_flight(report: Report, row: Row) -> str:
    several = any(other.in_flight > 1 for other in report.rows)
    return str(row.in_flight) if several and row.timing else "–"


def _uncertainty(report: Report, row: Row) -> str:
    return f"±{row.timing.interval.width / 2:.1%}" if row.timing else "–"


def _check(report: Report, row: Row) -> str:
    if row.timing is None:
        return "–"
    return "reference" if row.verdict is None else "ok" if row.verdict.correct else "WRONG"


def _megabytes(size: int | None) -> str:
    return "–" if size is None else f"{size / 1e6:.0f}"


def _megahertz(clocks: Clocks | None) -> str:
    return "–" if clocks is None or clocks.mhz is None else f"{clocks.mhz:.0f}" + ("!" if clocks.slowdowns else "")


COLUMNS = (
    Column("batch", lambda report, row: str(row.batch)),
    Column("engine", lambda report, row: report.label(row), left=True),
    Column("model", lambda report, row: row.spec.role, left=True),
    Column("transfers", lambda report, row: "" if row.transfers == "none" else row.transfers, left=True),
    Column("in flight", _in_flight),
    Column("img/s", _speed),
    Column("95 %", _uncertainty, yields=5),
    Column("× eager", lambda report, row: _ratio(over_eager(row, report.rows)), yields=2),
    Column("× torch", lambda report, row: _ratio(over_torch(row, report.rows)), yields=1),
    Column("× dense", lambda report, row: _ratio(over_dense(row, report.rows))),
    Column("median ms", lambda report, row: _milliseconds(row.latency.median if row.latency else None), yields=4),
    Column("p90", lambda report, row: _milliseconds(row.latency.p90 if row.latency else None), yields=7),
    Column("p99", lambda report, row: _milliseconds(row.latency.p99 if row.latency else None), yields=8),
    Column("of peak", lambda report, row: _share(report.share_of_peak(row)), yields=6),
    Column("host MB", lambda report, row: _megabytes(row.host_memory), yields=10),
    Column("GPU MB", lambda report, row: _megabytes(row.device_memory), yields=11),
    Column("MHz", lambda report, row: _megahertz(row.clocks), yields=13),
    Column("J/img", lambda report, row: "–" if row.joules is None else f"{row.joules:.3f}", yields=12),
    Column("top-1", lambda report, row: _share(row.verdict.top1 if row.verdict else None), yields=9),
    Column("check", _check, yields=3),
)
