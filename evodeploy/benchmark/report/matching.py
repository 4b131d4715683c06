"""Matching of the rows of two benches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from evodeploy.benchmark.report.reading import Document
from evodeploy.text import ratios_in_words


class Key(NamedTuple):
    """The identity of a row. `number` counts rows that are otherwise the same and have other files.

    `subject` is the model's name if several models are compared, else empty. `keep_ratios` are empty unless the
    artefact is elastic.
    """

    subject: str
    engine: str
    precision: str | None
    model: str
    transfers: str
    cuda_graph: bool
    in_flight: int
    keep_ratios: tuple[float, ...]
    batch: int
    number: int

    @property
    def label(self) -> str:
        """Everything except the batch, in words."""
        parts = (
            f"{self.subject}:" if self.subject else None,
            self.engine,
            self.precision,
            "graph" if self.cuda_graph else None,
            "resident" if self.transfers == "resident" else None,
            f"{self.in_flight} in flight" if self.in_flight > 1 else None,
            f"keep {ratios_in_words(self.keep_ratios)}" if self.keep_ratios else None,
            f"#{self.number}" if self.number > 1 else None,
            f"({self.model})",
        )
        return " ".join(part for part in parts if part)

    def __str__(self) -> str:
        return f"{self.label} at batch {self.batch}"


Rows = Mapping[Key, Document]


def by_key(benches: Sequence[Document], several: bool) -> dict[Key, Document]:
    """Return all rows of `benches` by key. With `several` models the key contains the name of the model."""
    seen: Counter[tuple[Any, ...]] = Counter()
    rows = {}
    for bench in benches:
        subject = bench["model"]["name"] if several else ""
        for row in bench["results"]:
            identity = row | {"keep_ratios": tuple(row.get("keep_ratios") or ())}
            what = (subject, *(identity[name] for name in Key._fields[1:-1]))
            seen[what] += 1
            rows[Key._make((*what, seen[what]))] = row
    return rows


def was_timed(row: Document) -> bool:
    """Return whether the row has times."""
    return bool(row["status"] != "unavailable")


def matched(before: Rows, after: Rows) -> Iterator[tuple[Key, Document, Document]]:
    """Yield each row that was timed in at least one of two benches, with its counterpart in the other.

    If the engine of a row could not be opened, its device is unknown, and so is a part of its key. Such a row is the
    counterpart of every unmatched row that it may have become.
    """
    for key, row in after.items():
        if key in before and (was_timed(before[key]) or was_timed(row)):
            yield key, before[key], row
    gone = {key: row for key, row in before.items() if key not in after}
    new = {key: row for key, row in after.items() if key not in before}
    yield from ((key, row, failed) for key, row in gone.items() if (failed := _unopened(key, row, new)))
    yield from ((key, failed, row) for key, row in new.items() if (failed := _unopened(key, row, gone)))


def _unopened(key: Key, row: Document, others: Rows) -> Document | None:
    """Return the row among `others` that may have become the timed `row` and whose engine could not be opened."""
    if not was_timed(row):
        return None
    alike = (other for its, other in others.items() if not other["device"] and _may_become(its, key))
    return next((other for other in alike if other["batch_asked"] == row["batch_asked"]), None)


def _may_become(failed: Key, key: Key) -> bool:
    """Return whether a row may have `key` once its engine is opened. An unknown precision or keep ratio matches any."""
    same = all(getattr(failed, name) == getattr(key, name) for name in ("subject", "engine", "model", "cuda_graph"))
    precision = "fp32" if key.precision == "tf32" else key.precision
    return same and failed.precision in (None, precision) and failed.keep_ratios in ((), key.keep_ratios)
