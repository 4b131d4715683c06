"""A profile: the time of each node, and of the nodes of a block and of a kind together."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evodeploy.files import save_as
from evodeploy.graph.parts import KINDS, Kind
from evodeploy.kinds import DRAWING, PAGE, REPORT
from evodeploy.text import json_text


@dataclass(frozen=True)
class NodeTime:
    """What the runtime computes as one: `seconds` in a run, the median of the runs, in `calls` calls.

    `name` and `operator` are the runtime's, `made_of` the nodes of the graph that it computes, where the runtime says
    so. `module` and `block` are empty where it belongs to none.
    """

    name: str
    operator: str
    module: str
    block: str
    kind: Kind
    made_of: tuple[str, ...]
    seconds: float
    calls: int

    @property
    def group(self) -> str:
        """Its block, or its kind where it is in none."""
        return self.block or self.kind


@dataclass(frozen=True)
class Group:
    """Nodes of a block or a kind together; `share` is of the time of all nodes."""

    name: str
    seconds: float
    share: float
    calls: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON takes."""
        return {"name": self.name, "ms": self.seconds * 1e3, "share": self.share, "calls": self.calls}


@dataclass(frozen=True)
class Profile:
    """Where the time of a run goes; printed, it is what `evodeploy profile` shows.

    `nodes` are in the order in which they run. `whole` is what a run takes without the profiler, and `traced` what it
    takes with it, in seconds: medians of `runs` runs of each, in turn. `unnamed` are the nodes of the graph that no
    step names: computed when the file was opened, or fused without a word. `keep_ratios` are those of an elastic
    artefact's runs, and of any other empty. `other` is the profile at another keep ratio, where that was asked for.
    """

    path: Path
    engine: str
    device: str
    batch: int
    keep_ratios: tuple[float, ...]
    runs: int
    whole: float
    traced: float
    nodes: tuple[NodeTime, ...]
    unnamed: tuple[str, ...] = ()
    other: Profile | None = None

    @property
    def total(self) -> float:
        """Seconds of all nodes."""
        return sum(node.seconds for node in self.nodes)

    @property
    def kinds(self) -> tuple[Group, ...]:
        """The time by kind of work, the longest first."""
        groups = [self._group(kind, [node for node in self.nodes if node.kind == kind]) for kind in KINDS]
        return tuple(sorted((each for each in groups if each.calls), key=lambda each: -each.seconds))

    @property
    def blocks(self) -> tuple[Group, ...]:
        """The time by block, and of nodes in none by kind, in the order in which half of each was computed."""
        places: dict[str, list[int]] = {}
        for index, node in enumerate(self.nodes):
            places.setdefault(node.group, []).append(index)
        names = sorted(places, key=lambda name: statistics.median(places[name]))
        return tuple(self._group(name, [self.nodes[index] for index in places[name]]) for name in names)

    @property
    def slowest(self) -> tuple[NodeTime, ...]:
        """All nodes, the slowest first."""
        return tuple(sorted(self.nodes, key=lambda node: -node.seconds))

    def share(self, seconds: float) -> float:
        """Return how much of the time of all nodes `seconds` are."""
        return seconds / self.total if self.total else 0.0

    def to_dict(self) -> dict[str, Any]:
        """All figures as plain values that JSON takes."""
        return {
            "schema": 1,
            "file": str(self.path),
            "engine": self.engine,
            "device": self.device,
            "batch": self.batch,
            "keep_ratios": list(self.keep_ratios),
            "runs": self.runs,
            "run_ms": self.whole * 1e3,
            "profiled_run_ms": self.traced * 1e3,
            "nodes_ms": self.total * 1e3,
            "kinds": [group.to_dict() for group in self.kinds],
            "blocks": [group.to_dict() for group in self.blocks],
            "nodes": [self._node(node) for node in self.nodes],
            "unnamed": list(self.unnamed),
        } | ({} if self.other is None else {"other": self.other.to_dict()})

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Write the profile to `path`: all figures as .json, a picture as .svg, or a page of both as .html.

        Raises UsageError for another suffix, and for a file that exists, which `force` replaces if it is such a one.
        """
        from evodeploy.profiling.picture import as_html, as_svg

        forms = {
            REPORT: lambda: json_text(self.to_dict()) + "\n",
            DRAWING: lambda: as_svg(self),
            PAGE: lambda: as_html(self),
        }
        save_as(path, "a profile", forms, force, self.path)

    def __str__(self) -> str:
        from evodeploy.profiling.table import as_text

        return as_text(self)

    def _group(self, name: str, nodes: list[NodeTime]) -> Group:
        seconds = sum(node.seconds for node in nodes)
        return Group(name, seconds, self.share(seconds), sum(node.calls for node in nodes))

    def _node(self, node: NodeTime) -> dict[str, Any]:
        return {
            "name": node.name,
            "operator": node.operator,
            "module": node.module,
            "block": node.block,
            "kind": node.kind,
            "made_of": list(node.made_of),
            "ms": node.seconds * 1e3,
            "share": self.share(node.seconds),
            "calls": node.calls,
        }


def modules_of(nodes: Iterable[NodeTime]) -> Iterator[tuple[str, list[NodeTime]]]:
    """Yield the nodes of each part of a block together: those of `blocks.3.attn.qkv` are of `attn`."""
    found: dict[str, list[NodeTime]] = {}
    for node in nodes:
        inner = node.module.removeprefix(node.block).strip(".").split(".")[0]
        found.setdefault(inner or node.kind, []).append(node)
    yield from found.items()
