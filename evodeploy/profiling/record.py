"""A profile: the time of each node, and the total time of each block and each kind."""

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
    """A step that the runtime times as one: `seconds` in a run, the median of the runs, in `calls` calls.

    `name` and `operator` are the runtime's. `made_of` are the graph's nodes that it computes, if the runtime names
    them. `module` and `block` are empty if it belongs to none.
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
        """The block, or the kind if there is no block."""
        return self.block or self.kind


@dataclass(frozen=True)
class Group:
    """The nodes of a block or a kind together. `share` is relative to the time of all nodes."""

    name: str
    seconds: float
    share: float
    calls: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"name": self.name, "ms": self.seconds * 1e3, "share": self.share, "calls": self.calls}


@dataclass(frozen=True)
class Profile:
    """The distribution of a run's time. Its text is what `evodeploy profile` shows.

    `nodes` are in the order in which they run. `whole` is the time of a run without the profiler and `traced` with it,
    in seconds: medians of `runs` runs each, in turn. `unnamed` are the nodes of the graph that no step names: they were
    computed when the file was opened, or fused without being named. `keep_ratios` are those of the runs of an elastic
    artefact, and empty for others. `other` is the profile at another keep ratio, if requested.
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
        """The seconds of all nodes."""
        return sum(node.seconds for node in self.nodes)

    @property
    def kinds(self) -> tuple[Group, ...]:
        """The time by kind of work, the longest first."""
        groups = [self._group(kind, [node for node in self.nodes if node.kind == kind]) for kind in KINDS]
        return tuple(sorted((each for each in groups if each.calls), key=lambda each: -each.seconds))

    @property
    def blocks(self) -> tuple[Group, ...]:
        """The time by block, or by kind for nodes without one, ordered by the median position of their nodes."""
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
        """Return `seconds` as a share of the time of all nodes."""
        return seconds / self.total if self.total else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as plain values for JSON."""
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
        """Write the profile to `path`: all figures as .json, a picture as .svg, or a page with both as .html.

        Raises UsageError for another suffix, or if the file exists. `force` replaces an existing file of the same kind.
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
    """Yield the nodes of each part of a block together: those of `blocks.3.attn.qkv` belong to `attn`."""
    found: dict[str, list[NodeTime]] = {}
    for node in nodes:
        inner = node.module.removeprefix(node.block).strip(".").split(".")[0]
        found.setdefault(inner or node.kind, []).append(node)
    yield from found.items()
