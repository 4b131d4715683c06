"""The results of one bench, and conclusions from them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evodeploy.benchmark.measure.interleaved import Budget
from evodeploy.benchmark.report.speedups import crossovers, eager, fastest_torch, label, name, over_eager, over_torch
from evodeploy.benchmark.row import Row
from evodeploy.benchmark.stages import EndToEnd
from evodeploy.benchmark.subject import Subject
from evodeploy.files import save_as
from evodeploy.kinds import MEASUREMENTS, PAGE, REPORT
from evodeploy.machine.environment import Environment
from evodeploy.text import json_text, line, plain

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

NAMED = 6  # rows in one sentence

Peaks = dict[tuple[str, str], float]


@dataclass(frozen=True)
class Report:
    """The results of a bench. `peaks` are operations per second by device and arithmetic."""

    subject: Subject
    environment: Environment
    budget: Budget
    rows: tuple[Row, ...]
    peaks: Peaks
    end_to_end: tuple[EndToEnd, ...] = ()

    @property
    def wrong(self) -> tuple[Row, ...]:
        """The rows that were timed, but compute wrong results."""
        return tuple(row for row in self.rows if row.wrong)

    @property
    def timed(self) -> bool:
        """Whether any row was timed."""
        return any(row.timing for row in self.rows)

    def share_of_peak(self, row: Row) -> float | None:
        """Return the row's share of this machine's peak in the same arithmetic (MFU)."""
        achieved, arithmetic = row.operations_per_second, row.arithmetic
        peak = self.peaks.get((row.device, arithmetic)) if arithmetic else None
        return None if achieved is None or peak is None else achieved / peak

    def to_dict(self) -> dict[str, Any]:
        """Return the bench as plain JSON values, as docs/reference/results-file.md lists them."""
        from evodeploy.benchmark.report.document import as_dict

        return as_dict(self)

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Write the bench to `path`: the document as .json, the rows as .csv, or a page with plots as .html.

        Raises UsageError for another suffix, or if the file exists. `force` replaces an existing file of the same kind.
        """
        from evodeploy.benchmark.report.document import as_csv
        from evodeploy.benchmark.report.page import as_html

        forms = {
            REPORT: lambda: json_text(self.to_dict()) + "\n",
            MEASUREMENTS: lambda: as_csv(self),
            PAGE: lambda: as_html(self),
        }
        save_as(path, "a bench", forms, force)

    def __str__(self) -> str:
        return plain(self)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from evodeploy.benchmark.report.table import as_table, stages_table

        machine = self.environment
        yield line(f"{self.subject.name} on {machine.processor}, {machine.threads} threads, runs interleaved")
        yield line("evo: the model; dense: its twin that keeps every token; eager: PyTorch eager in FP32 on evo;")
        yield line("torch: the fastest PyTorch row of the same model, in any precision")
        if any(row.spec.keep for row in self.rows):
            yield line("keep: the share of tokens that a run keeps; eager and torch keep the same share")
        yield line("")
        yield as_table(self, options.max_width)
        if self.end_to_end:
            yield line("\nfrom files to labels, milliseconds of one image")
            yield stages_table(self.end_to_end)
        yield line("")
        yield from map(line, headlines(self))
        yield from (line(f"– {caution}") for caution in cautions(self))

    def name(self, row: Row) -> str:
        """Return the row's label, whether its batch is resident, and the number of batches in flight if above one."""
        return name(row, self.rows)

    def label(self, row: Row) -> str:
        """Return the row's label, with its file if several of the same kind are compared."""
        return label(row, self.rows)


def headlines(report: Report) -> Iterator[str]:
    """Yield sentences: the fastest at each batch and keep ratio, with one and more in flight; where selection pays."""
    for batch, keep in dict.fromkeys((row.asked, row.spec.keep) for row in report.rows if row.spec.role == "evo"):
        alike = [row for row in report.rows if (row.asked, row.spec.keep) == (batch, keep)]
        evo = [row for row in alike if row.spec.role == "evo" and not row.wrong]
        speeds = {row: speed.value for row in evo if (speed := row.images_per_second)}
        if speeds:
            best = max([row for row in speeds if row.in_flight == 1] or speeds, key=lambda row: speeds[row])
            over = _over_pytorch(report, best)
            yield f"fastest at batch {batch}: {report.name(best)}, {speeds[best]:.1f} img/s{over}"
            most = max(speeds, key=lambda row: speeds[row])
            if most is not best:
                yield f"most at batch {batch}: {report.name(most)}, {speeds[most]:.1f} img/s"
    pays: dict[str, list[str]] = {}
    for crossover in crossovers(report.rows):
        pays.setdefault(crossover.sentence, []).append(crossover.label)
    yield from (f"{sentence}: {_listed(labels)}" for sentence, labels in pays.items())


def _listed(labels: list[str]) -> str:
    """Join a limited number of labels: on a GPU there are about fifty rows."""
    more = len(labels) - NAMED
    return ", ".join(labels) if more <= 1 else f"{', '.join(labels[:NAMED])} and {more} more"


def _over_pytorch(report: Report, row: Row) -> str:
    """Return how `row` compares with the fastest PyTorch row and with eager, both by name."""
    fastest, plain = fastest_torch(row, report.rows), eager(row, report.rows)
    others = [("the fastest PyTorch", fastest, over_torch), ("PyTorch eager", plain, over_eager)]
    if fastest is plain:
        others = [("PyTorch eager, its fastest", plain, over_eager)]
    said = ""
    for what, other, over in others:
        ratio = over(row, report.rows)
        if other is row:
            said += f", which is {what}"
        elif other is not None and ratio is not None:
            said += f", {ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f}) × {what} ({report.name(other)})"
    return said


def cautions(report: Report) -> Iterator[str]:
    """Yield what is wrong, unstable, halved or missing, each once."""
    lines = []
    for row in report.rows:
        where = f"{report.name(row)} ({row.spec.role})"
        at = f"batch {row.asked}: {where}"
        if row.reason:
            lines.append(f"{where}: {row.reason}")
        if row.wrong and row.verdict is not None:
            lines.append(f"WRONG: {at}: {row.verdict}")
        if row.exposed:
            lines.append(
                f"{at}: the GPU began before all work was enqueued, so its time may include the host's time "
                "for enqueueing"
            )
        if row.batch < row.asked:
            lines.append(f"{at} ran out of memory and was run at batch {row.batch}")
    lines += [f"{stages.label}, from files to labels: {stages.reason}" for stages in report.end_to_end if stages.reason]
    yield from dict.fromkeys(lines)
    yield from _slowdowns(report)
    unstable = [(row, row.timing) for row in report.rows if row.timing and row.timing.warnings]
    if unstable:
        row, timing = max(unstable, key=lambda pair: pair[1].cv)
        yield (
            f"{len(unstable)} of {len(report.rows)} rows are unstable (img/s marked !), {report.name(row)} at batch "
            f"{row.asked} the most: {', '.join(timing.warnings)}"
        )
    late = [str(batch) for batch in dict.fromkeys(row.asked for row in report.rows if row.stopped == "time")]
    if late:
        yield (
            f"batch {', '.join(late)}: the time limit came before every median was known to "
            f"{report.budget.precision:.1%}: raise it with --seconds"
        )


def _slowdowns(report: Report) -> Iterator[str]:
    slowed = [(row, row.clocks) for row in report.rows if row.clocks and row.clocks.slowdowns]
    if slowed:
        row, clocks = max(slowed, key=lambda pair: max(share for _, share in pair[1].slowdowns))
        reasons = ", ".join(f"{name.replace('_', ' ')} {share:.0%}" for name, share in clocks.slowdowns)
        yield (
            f"the GPU slowed down in {len(slowed)} of {len(report.rows)} rows (MHz marked !), in {report.name(row)} at "
            f"batch {row.asked} the most: {reasons} of its samples, {clocks.lowest_mhz} MHz at the lowest"
        )
    if any(gpu.mig for gpu in report.environment.gpus):
        yield (
            "the GPU is divided (MIG): energy and memory are known for the whole card only, so rows have none; "
            "clocks are the whole card's too"
        )
