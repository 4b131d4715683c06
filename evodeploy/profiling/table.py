"""A profile as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from evodeploy.profiling.record import Group, NodeTime, Profile
from evodeploy.text import WIDE, brief, plain, ratios_in_words, rich_table

if TYPE_CHECKING:
    from rich.table import Table

SLOWEST = 10  # nodes printed
LITTLE = 0.8  # of a run in its nodes: below this share, the text explains where the rest may be
NAME = 60  # maximum length of a node's name


def as_text(profile: Profile) -> str:
    """Return the text that `evodeploy profile` shows."""
    slowest = profile.slowest[:SLOWEST]
    return "\n".join(
        [
            heading(profile),
            *overhead(profile),
            *([] if profile.other is None else ["", heading(profile.other), *overhead(profile.other)]),
            "",
            plain(_groups("kind", profile, lambda each: each.kinds), WIDE),
            "",
            plain(_groups("block", profile, lambda each: each.blocks), WIDE),
            "",
            plain(_nodes(profile, slowest), WIDE),
            *_remarks(profile),
        ]
    )


def heading(profile: Profile) -> str:
    """Return one line about what was measured."""
    kept = f", keep ratio {ratios_in_words(profile.keep_ratios)}" if profile.keep_ratios else ""
    return f"{profile.path} in {profile.engine} on {profile.device}, batch {profile.batch}{kept}, {profile.runs} runs"


def overhead(profile: Profile) -> list[str]:
    """Return the comparison of the nodes' total time with whole runs, with and without the profiler."""
    added = profile.traced / profile.whole - 1 if profile.whole else 0.0
    lines = [
        f"a run takes {profile.whole * 1e3:.2f} ms without the profiler and {profile.traced * 1e3:.2f} ms with it "
        f"({added:+.0%});",
        f"the medians of its nodes add up to {profile.total * 1e3:.2f} ms, and shares are of this sum",
    ]
    if profile.total < LITTLE * profile.traced:
        lines.append("the rest of a run is between nodes, or in nodes that had to wait: the machine may be busy")
    return lines


def _remarks(profile: Profile) -> list[str]:
    if not profile.unnamed:
        return []
    count = len(profile.unnamed)
    return [
        "",
        f"{count} nodes of the graph have no time of their own: the runtime computed them when it opened the file, or",
        "fused them into others that do not name them",
    ]


def _groups(what: str, profile: Profile, of: Callable[[Profile], Sequence[Group]]) -> Table:
    """Return a table with a line for each group; with another profile, also its milliseconds and the ratio."""
    other = {} if profile.other is None else {group.name: group.seconds for group in of(profile.other)}
    at = "" if profile.other is None else f"ms at {ratios_in_words(profile.other.keep_ratios)}"
    table = rich_table((what, "ms", "share", "calls", *([at, "ratio"] if at else [])), [what])
    for group in of(profile):
        against = other.get(group.name)
        times = (
            [] if against is None else [f"{against * 1e3:.3f}", f"{group.seconds / against:.2f}" if against else "–"]
        )
        name, share = brief(group.name, NAME), f"{group.share:.1%}"
        table.add_row(name, f"{group.seconds * 1e3:.3f}", share, str(group.calls), *times)
    return table


def _nodes(profile: Profile, nodes: Sequence[NodeTime]) -> Table:
    left = ("slowest nodes", "kind", "operator")
    table = rich_table((*left, "ms", "share"), left)
    for node in nodes:
        share = f"{profile.share(node.seconds):.1%}"
        operator = brief(node.operator, 24) or "–"
        table.add_row(_shown(node), node.kind, operator, f"{node.seconds * 1e3:.3f}", share)
    return table


def _shown(node: NodeTime) -> str:
    """Return the name of a node: the runtime's, or that of the nodes it consists of if it differs."""
    if not node.made_of or node.name in node.made_of:
        return brief(node.name, NAME)
    more = f" + {len(node.made_of) - 1} more" if node.made_of[1:] else ""
    return brief(node.made_of[0], NAME - len(more)) + more
