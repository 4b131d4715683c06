"""The results of debugging: records that print as a table by block, and convert to plain values."""

from __future__ import annotations

import dataclasses
import math
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evodeploy.files import save_as
from evodeploy.kinds import DRAWING, REPORT
from evodeploy.text import WIDE, json_text, plain, rich_table

if TYPE_CHECKING:
    from rich.table import Table

SHOWN = 8  # nodes that the text lists


@dataclass(frozen=True)
class NodeError:
    """One node on all images; errors are relative to the largest magnitude of its output.

    `block` is the block it belongs to, or its kind of work if it is in no block. `error` is the error of its output and
    `inherited` the largest error of its inputs. `own` is its error with the reference's inputs, rounded as in the other
    model. `rms` is the root mean square of the error, relative to that of the output. `largest` is the output's largest
    magnitude in the reference, `beyond` the share of its elements that exceed FP16's 65504, and `flushed` the share of
    elements that are too small for FP16 and become 0.
    """

    name: str
    operator: str
    block: str
    error: float
    inherited: float
    own: float
    rms: float
    largest: float
    beyond: float
    flushed: float


@dataclass(frozen=True)
class OutputError:
    """An output of the network: the largest error of each image, relative to the output's largest magnitude."""

    name: str
    images: tuple[float, ...]

    @property
    def error(self) -> float:
        """The error of the worst image."""
        return max(self.images)


@dataclass(frozen=True)
class Flips:
    """A selection: the number of positions in each image that the other model selects and the reference does not."""

    node: str
    kept: int
    flipped: tuple[int, ...]


@dataclass(frozen=True)
class Trial:
    """The number of nodes that a conversion keeps in FP32, and the error of its outputs."""

    kept: int
    error: float


@dataclass(frozen=True)
class Proposal:
    """The nodes to keep in FP32 when the reference is converted to `precision`, and the remaining `error`.

    `before` is the error with none kept. `minimal` is true if none of them can be left out.
    """

    precision: str
    keep_fp32: tuple[str, ...]
    before: float
    error: float
    minimal: bool
    trials: tuple[Trial, ...]

    @property
    def options(self) -> str:
        """The options of `export` and `build-engine`, ready for a shell."""
        return " ".join(f"--keep-fp32 {shlex.quote(name)}" for name in self.keep_fp32)

    def __str__(self) -> str:
        what = f"convert the reference to {self.precision.upper()}"
        if not self.keep_fp32:
            return f"repair: {what} again: its error is {shown(self.error)} with no node kept in FP32"
        least = "none of them can be left out" if self.minimal else "fewer may do, but the search was cut short"
        return (
            f"repair: {what} with nodes kept in FP32 ({len(self.keep_fp32)}, {least}): the error falls from "
            f"{shown(self.before)} to {shown(self.error)} ({len(self.trials)} conversions tried)\n"
            f"  --{self.precision} {self.options}"
        )


@dataclass(frozen=True)
class DebugReport:
    """The differences of `other` from `reference` on `images` images, which are noise if `random`.

    `nodes` are those of the reference whose values both compute, in its order. `begins` names the first of them whose
    own error exceeds both the tolerance and the error it inherits; None if there is none. `selections` count the
    positions that the other selects and the reference does not. `proposal` is None if no conversion would help or none
    was asked for.
    """

    reference: str
    other: str
    images: int
    random: bool
    tolerance: float
    outputs: tuple[OutputError, ...]
    nodes: tuple[NodeError, ...]
    begins: str | None
    selections: tuple[Flips, ...]
    only_in_reference: int
    proposal: Proposal | None = None

    @property
    def error(self) -> float:
        """The largest error of all outputs."""
        return max(output.error for output in self.outputs)

    @property
    def passed(self) -> bool:
        """Whether the outputs are within the tolerance."""
        return self.error <= self.tolerance

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON, with null for an infinite error."""
        document = {"schema": 1, **dataclasses.asdict(self), "error": self.error, "passed": self.passed}
        if self.proposal is not None:
            document["proposal"]["options"] = self.proposal.options
        finite: dict[str, Any] = _finite(document)
        return finite

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Write the report to `path`: everything as .json, or a drawing of the error along the network as .svg.

        Raises UsageError for another suffix, or if the file exists. `force` replaces an existing file of the same kind.
        """
        from evodeploy.debugging.picture import as_svg

        save_as(
            path, "a report", {REPORT: lambda: json_text(self.to_dict()) + "\n", DRAWING: lambda: as_svg(self)}, force
        )

    def __str__(self) -> str:
        noise = " random" if self.random else ""
        verdict = "within" if self.passed else "beyond"
        lines = [
            f"{self.other} against {self.reference}, {self.images}{noise} images: the error of "
            f"{', '.join(output.name for output in self.outputs)} is {shown(self.error)}, {verdict} the tolerance of "
            f"{self.tolerance:.2g}",
            *(row.rstrip() for row in plain(_by_block(self.nodes), WIDE).splitlines()),
        ]
        if self.only_in_reference:
            lines.append(f"nodes of the reference without a counterpart by name: {self.only_in_reference}")
        lines += _culprits(self)
        lines += [_flips(each) for each in self.selections]
        if self.proposal is not None:
            lines.append(str(self.proposal))
        return "\n".join(lines)


def shown(error: float) -> str:
    """Return an error as short text; it is infinite if a value is NaN or infinite."""
    return f"{error:.2g}" if math.isfinite(error) else "infinite"


def first_cause(nodes: Sequence[NodeError], tolerance: float) -> str | None:
    """Return the name of the first of `nodes` whose own error exceeds both the tolerance and that of its inputs."""
    return next((node.name for node in nodes if node.own > max(tolerance, node.inherited)), None)


def _by_block(nodes: Sequence[NodeError]) -> Table:
    left, measured = ("block", "node of the largest own error"), ("error", "rms", "largest own error", "largest value")
    table = rich_table((left[0], "nodes", *measured, "beyond FP16", "flushed", left[1]), left)
    blocks: dict[str, list[NodeError]] = {}
    for node in nodes:
        blocks.setdefault(node.block, []).append(node)
    for block, inside in blocks.items():
        worst = max(inside, key=lambda node: node.own)
        shares = (max(node.beyond for node in inside), max(node.flushed for node in inside))
        table.add_row(
            block,
            str(len(inside)),
            shown(inside[-1].error),
            shown(inside[-1].rms),
            shown(worst.own),
            f"{max(node.largest for node in inside):.3g}",
            *(f"{share:.2%}" if share else "0" for share in shares),
            worst.name,
        )
    return table


def _culprits(report: DebugReport) -> list[str]:
    found = [node for node in report.nodes if node.own > report.tolerance]
    if report.begins is None:
        worst = max(report.nodes, key=lambda node: node.own)
        return [f"no node adds more than the tolerance; most adds {worst.name} ({shown(worst.own)})"]
    lines = [f"it begins at {report.begins}; nodes whose own error exceeds the tolerance, in order:"]
    lines += [
        f"  {node.name}: own error {shown(node.own)}, inherited {shown(node.inherited)}, value up to {node.largest:.3g}"
        for node in found[:SHOWN]
    ]
    more = len(found) - SHOWN
    return [*lines, *([f"  and {more} more"] if more > 0 else [])]


def _flips(selection: Flips) -> str:
    images = [str(index) for index, count in enumerate(selection.flipped) if count]
    if not images:
        return f"selection {selection.node}: the same {selection.kept} on every image"
    which = ", ".join(images[:SHOWN]) + (", …" if len(images) > SHOWN else "")
    return (
        f"selection {selection.node}: {sum(selection.flipped)} of {selection.kept * len(selection.flipped)} differ, on "
        f"{len(images)} of {len(selection.flipped)} images ({which})"
    )


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
