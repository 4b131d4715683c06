"""Comparison of two benches of one model on one machine: changes, separated from noise."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evodeploy.benchmark.measure.intervals import Interval, ratio_of_medians, same_location_probability
from evodeploy.benchmark.report.matching import Key, by_key, matched, was_timed
from evodeploy.benchmark.report.reading import Document, read_benches
from evodeploy.errors import UsageError
from evodeploy.text import line, plain, rich_table

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.table import Table

MIN_CHANGE = 0.02  # a share of the median
SIGNIFICANT = 0.01  # the highest probability that any row of a comparison is reported as changed by chance
MACHINE = ("processor", "cores", "threads", "memory_bytes", "gpus")
MEMORY = 0.02  # by which it may differ, as a share


@dataclass(frozen=True)
class Change:
    """One row in both documents. `speedup` is new over old throughput, `probability` that of such a change by chance.

    `verdict` is faster, slower or same; broken if the row was right before and is wrong or not timed now; repaired if
    it could not be timed before.
    """

    label: str
    batch: int
    speedup: Interval | None
    probability: float | None
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """The rows that both benches have, the rows that only one has, and the versions that differ."""

    changes: tuple[Change, ...]
    only_old: tuple[str, ...]
    only_new: tuple[str, ...]
    differences: tuple[str, ...]

    @property
    def regressed(self) -> bool:
        """Whether any row is slower or broken."""
        return any(change.verdict in ("slower", "broken") for change in self.changes)

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as plain JSON values."""
        return dataclasses.asdict(self) | {"regressed": self.regressed}

    def __str__(self) -> str:
        return plain(self)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        yield from map(line, self.differences)
        yield _table(self.changes)
        yield from (line(f"– {label}: only in the old bench") for label in self.only_old)
        yield from (line(f"– {label}: only in the new bench") for label in self.only_new)
        moved = [change.verdict for change in self.changes if change.verdict != "same"]
        counts = ", ".join(f"{moved.count(verdict)} {verdict}" for verdict in dict.fromkeys(moved))
        yield line(f"\n{counts or 'no row changed'} of {len(self.changes)}")


def compare_benches(
    old: str | os.PathLike[str], new: str | os.PathLike[str], *, min_change: float = MIN_CHANGE
) -> Comparison:
    """Return the changes from the bench in `old` to that in `new`, JSON documents as `Report.save` writes them.

    A change counts from `min_change` up, a share of the median. Raises BadFileError if a file is not such a document,
    UsageError if the machines or models differ.
    """
    return compare(read_benches(Path(old)), read_benches(Path(new)), min_change)


def compare(old: Sequence[Document], new: Sequence[Document], smallest: float) -> Comparison:
    """Return the changes from the benches `old` to `new`. Raises UsageError if the machines or models differ.

    Benches are paired by the name of their model; a single one on each side is compared in any case. A row has changed
    if a rank-sum test of all its runs gives a probability below one in a hundred for no difference, over all rows
    together (Holm's correction), and the medians differ by `smallest` or more. The second condition is needed because
    with many runs even the difference between two hours on one machine is significant, but irrelevant.
    """
    pairs = list(_pairs(old, new))
    if not pairs:
        raise UsageError(f"no model is in both benches: the old one has {_names(old)}, the new one {_names(new)}")
    for pair in pairs:
        _refuse_unlike(*pair)
    several = len(old) > 1 or len(new) > 1
    before, after = by_key(old, several), by_key(new, several)
    rows = list(matched(before, after))
    probabilities = {
        key: same_location_probability(was["samples_ms"], now["samples_ms"])
        for key, was, now in rows
        if was_timed(was) and was_timed(now)
    }
    significant = _holm(probabilities)
    changes = [_change(key, was, now, probabilities.get(key), key in significant, smallest) for key, was, now in rows]
    paired = {id(row) for _, *both in rows for row in both}
    return Comparison(
        tuple(changes),
        tuple(str(key) for key, row in before.items() if key not in after and id(row) not in paired),
        tuple(str(key) for key, row in after.items() if key not in before and id(row) not in paired),
        tuple(_differences(pairs[0][0]["environment"], pairs[0][1]["environment"])),
    )


def _pairs(old: Sequence[Document], new: Sequence[Document]) -> Iterator[tuple[Document, Document]]:
    if len(old) == len(new) == 1:
        yield old[0], new[0]
        return
    known = {bench["model"]["name"]: bench for bench in old}
    yield from ((known[name], bench) for bench in new if (name := bench["model"]["name"]) in known)


def _names(benches: Sequence[Document]) -> str:
    return ", ".join(bench["model"]["name"] for bench in benches)


def _change(
    key: Key, old: Document, new: Document, probability: float | None, significant: bool, smallest: float
) -> Change:
    if not was_timed(old):
        return Change(key.label, key.batch, None, None, "repaired")
    speedup = None
    if was_timed(new):
        speedup = ratio_of_medians(old["samples_ms"], new["samples_ms"])
    verdict = "same"
    if speedup is None or (new["status"] == "wrong" and old["status"] == "ok"):
        verdict = "broken"
    elif significant and abs(speedup.value - 1) >= smallest:
        verdict = "faster" if speedup.value > 1 else "slower"
    return Change(key.label, key.batch, speedup, probability, verdict)


def _holm(probabilities: dict[Key, float]) -> set[Key]:
    """Return the rows whose difference is significant when all are judged together (Holm, 1979)."""
    found: set[Key] = set()
    for rank, key in enumerate(sorted(probabilities, key=lambda key: probabilities[key])):
        if probabilities[key] > SIGNIFICANT / (len(probabilities) - rank):
            break
        found.add(key)
    return found


def _refuse_unlike(old: Document, new: Document) -> None:
    for whose, part, names in (("machine", "environment", MACHINE), ("model", "model", tuple(new["model"]))):
        for name in names:
            first, second = (_names_alone(document[part].get(name)) for document in (old, new))
            if not _alike(name, first, second):
                what = f"the {whose}'s {name.replace('_', ' ')}"
                raise UsageError(
                    f"these benches cannot be compared: {what} is {first} in the old one and {second} in the new one"
                )


def _alike(name: str, first: Any, second: Any) -> bool:
    """Return whether the two are the same. Memory may differ by a little: each kernel reserves another share."""
    if name == "memory_bytes" and type(first) is type(second) is int:
        return math.isclose(first, second, rel_tol=MEMORY)
    return bool(first == second)


def _names_alone(value: Any) -> Any:
    """Return only the names of GPUs, since clocks and drivers may differ. Other values are returned unchanged."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [item.get("name") for item in value]
    return value


def _differences(old: Document, new: Document) -> Iterator[str]:
    for name in ("commit", "system", "python", "governor"):
        if old.get(name) != new.get(name):
            yield f"{name}: {old.get(name)} → {new.get(name)}"
    for group in ("packages", "variables"):
        before, after = old.get(group, {}), new.get(group, {})
        names: Sequence[str] = sorted({*before, *after})
        yield from (f"{n}: {before.get(n)} → {after.get(n)}" for n in names if before.get(n) != after.get(n))


def _table(changes: Sequence[Change]) -> Table:
    headings = ("batch", "row", "new over old", "95 %", "by chance", "verdict")
    table = rich_table(headings, ["row", "verdict"], folds=False)
    styles = {"slower": "red", "broken": "bold red", "faster": "green", "repaired": "green"}
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
    return table
