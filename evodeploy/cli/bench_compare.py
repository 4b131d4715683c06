"""`evodeploy bench --compare OLD NEW`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evodeploy.cli.console import result_json, show
from evodeploy.cli.values import real
from evodeploy.errors import UsageError

MIN_CHANGE = 0.02
MinChange = Annotated[
    float, real("--min-change", 0, 100, "With --compare: the least change of a median that counts, as a share.")
]
_OWN = {"compare", "min_change", "artefacts", "as_json"}


def compare(context: typer.Context, documents: list[Path], min_change: float, as_json: bool) -> None:
    """Print the changes; exit with 1 if a row is slower, wrong or missing."""
    from evodeploy.benchmark.report.compare import compare_benches

    refuse_others(context, _OWN, "--compare")
    if len(documents) != 2:
        raise UsageError(f"--compare takes two JSON documents, the old and the new, got {len(documents)}")
    found = compare_benches(*documents, min_change=min_change)
    if as_json:
        result_json(found.to_dict())
    else:
        show(found)
    if found.regressed:
        raise typer.Exit(1)


def refuse_without_compare(context: typer.Context) -> None:
    """Raise UsageError for options that only apply to a comparison."""
    if "min_change" in _given(context):
        raise UsageError("--min-change needs --compare: add it, or leave it out")


def refuse_others(context: typer.Context, own: set[str], form: str) -> None:
    """Raise UsageError for an option that does not apply to this `form` of the command; `own` are those that do."""
    others = sorted(_given(context) - own)
    if others:
        raise UsageError(f"--{others[0].replace('_', '-')} has no meaning with {form}: leave it out")


def _given(context: typer.Context) -> set[str]:
    """Return the names of the options on the command line."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}
