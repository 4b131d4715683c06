"""The two tables of an agreement: the logits with their limits, and the tokens of each selection."""

from __future__ import annotations

from rich.table import Table

from evodeploy.compare.agreement import Agreement
from evodeploy.text import rich_table


def logits_table(verdict: Agreement) -> Table:
    """Return the table of errors with their limits, cosines and top-1."""
    table = rich_table(("logits", "", "limit"), ["logits"])
    logits, limit = verdict.logits, f"{verdict.logits.limit:.0e}"
    table.add_row("largest error", f"{logits.max_error:.1e}", "" if verdict.selections else limit)
    if verdict.selections:
        table.add_row(
            f"… in the {logits.unmoved} images with the same tokens{', merged alike' if logits.regrouped else ''}",
            f"{logits.max_error_unmoved:.1e}",
            limit,
        )
    same = logits.unmoved + logits.regrouped
    if logits.regrouped or not same:
        table.add_row(
            f"median of the {same} images with the same tokens"
            if same
            else "median of all images, whose tokens differ",
            f"{logits.median_error:.1e}",
            f"{logits.median_limit:.0e}",
        )
    table.add_row("mean error", f"{logits.mean_error:.1e}", "")
    table.add_row("cosine, worst and median", f"{logits.min_cosine:.6f}  {logits.median_cosine:.6f}", "")
    if logits.top1 is not None:
        table.add_row("same top-1", f"{logits.top1:.2%}", "")
    return table


def selections_table(verdict: Agreement) -> Table:
    """Return a table with a row for each selection: the differing tokens, by cause."""
    headings = (
        "selection",
        "identical sets",
        "tokens agreeing",
        "Jaccard",
        "near-ties",
        "consequences",
        "errors",
        "gap",
    )
    table = rich_table(headings, ["selection"])
    for each in verdict.selections:
        gap = "–" if each.largest_gap is None else f"{each.largest_gap:.1e}"
        table.add_row(
            each.name,
            f"{each.identical} of {verdict.logits.images}",
            f"{each.agreement:.2%}",
            f"{each.jaccard:.4f}",
            str(each.near_ties),
            str(each.consequences),
            str(each.errors),
            gap,
        )
    return table
