"""`evodeploy bench --compare OLD NEW`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evodeploy.cli.console import result, result_json, show
from evodeploy.cli.values import real
from evodeploy.errors import UsageError

if TYPE_CHECKING:
    from evodeploy.benchmark.report.compare import Change

MIN_CHANGE = 0.02
MinChange = Annotated[
    float, real("--min-change", 0, 100, "With --compare: a change is one from this share of the median up.")
]
_OWN = {"compare", "min_change", "artefacts", "as_json"}


def compare(context: typer.Context, documents: list[Path], min_change: float, as_json: bool) -> None:
    """Print what changed; exit with 1 where a row is slower, wrong or gone."""
    from evodeploy.benchmark.report.compare import compare as compared
    from evodeploy.benchmark.report.reading import read_benches

    others = sorted(given(context) - _OWN)
    if others:
        raise UsageError(f"--{others[0].replace('_', '-')} has no meaning with --compare: leave it out")
    if len(documents) != 2:
        raise UsageError(f"--compare takes two JSON documents, the old and the new, got {len(documents)}")
    old, new = (read_benches(path) for path in documents)
    found = compared(old, new, min_change)
    if as_json:
        result_json(dataclasses.asdict(found) | {"regressed": found.regressed})
    else:
        for line in found.differences:
            result(line)
        _show(found.changes)
        for label in found.only_old:
            result(f"– {label}: only in {documents[0]}")
        for label in found.only_new:
            result(f"– {label}: only in {documents[1]}")
        moved = [change.verdict for change in found.changes if change.verdict != "same"]
        counts = ", ".join(f"{moved.count(verdict)} {verdict}" for verdict in dict.fromkeys(moved))
        result(f"\n{counts or 'no row changed'} of {len(found.changes)}")
    if found.regressed:
        raise typer.Exit(1)


def refuse_without_compare(context: typer.Context) -> None:
    """Raise UsageError for what only a comparison can honour."""
    if "min_change" in given(context):
        raise UsageError("--min-change needs --compare: add it, or leave it out")


def given(context: typer.Context) -> set[str]:
    """The options that the command line names."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}


def _show(changes: tuple[Change, ...]) -> None:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("batch", "row", "new over old", "95 %", "by chance", "verdict"):
        table.add_column(heading, justify="left" if heading in ("row", "verdict") else "right", no_wrap=True)
    styles = {"slower": "red", "broken": "bold red", "faster": "green"}
    for change in changes:
        ratio, chance = change.speedup, change.probability
        table.add_row(
            str(change.batch),
            change.label,
            f"{ratio.value:.3f}" if ratio else "–",
            f"{ratio.low:.3f} to {ratio.high:.3f}" if ratio else "–",
            "–" if chance is None else "< 0.001" if chance < 1e-3 else f"{chance:.3f}",
            change.verdict,
            style=styles.get(change.verdict),
        )
    show(table)
