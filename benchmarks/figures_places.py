"""Where a figure is on a page and in what a command prints, for benchmarks/figures.py."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import figures_layout as layout

Pair = tuple[str, str, str]  # where, what the page says, what was printed


@dataclass(frozen=True)
class Table:
    """A table of a page, whose heading begins with `heading`, and one that is `printed`; by default alike.

    Rows are compared in their order, those that match the regular expressions `only` on the page and `rows` as printed.
    `columns` has the printed column of each column of the page that is compared; without, all but `labels` are. `nth`
    counts the tables of a page that begin alike.
    """

    page: str
    heading: str
    printed: str = ""
    columns: Mapping[int, int] = field(default_factory=dict)
    labels: int = 1
    only: str = ""
    rows: str = ""
    nth: int = 0

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return self.heading

    def pairs(self, page: str, printed: str) -> Iterator[Pair]:
        """The cells to compare; none where a table is missing, or has another number of rows."""
        ours = [row for row in tables(page, self.heading, self.nth) if re.search(self.only, " | ".join(row))]
        theirs = [row for row in tables(printed, self.printed or self.heading) if re.search(self.rows, " | ".join(row))]
        if len(ours) != len(theirs):
            return
        for said, now in zip(ours, theirs, strict=True):
            columns = self.columns or {column: column for column in range(self.labels, len(said))}
            for column, other in columns.items():
                yield f"{' '.join(said[: self.labels])}, column {column + 1}", said[column], now[other]


@dataclass(frozen=True)
class Text:
    """A sentence of a page, found by a regular expression, and what is printed, by another: their groups compared."""

    page: str
    said: str
    printed: str

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return self.said

    def pairs(self, page: str, printed: str) -> Iterator[Pair]:
        """The groups to compare; none where either is not found."""
        ours, theirs = re.search(self.said, " ".join(page.split())), re.search(self.printed, printed)
        if ours and theirs:
            yield from ((ours[0], *pair) for pair in zip(ours.groups(), theirs.groups(), strict=True))


@dataclass(frozen=True)
class Entry:
    """A command, run by bash with $ROOT the repository; `minutes` on two quiet cores, an estimate.

    What it prints, after `layout`, is compared with `places`. `noise` is a share, 0 for what is counted. It needs the
    package that the command `needs` installs, and a processor with all `flags`: one without them gives other figures.
    """

    command: str
    minutes: float
    places: tuple[Table | Text, ...]
    noise: float = 0.0
    layout: Callable[[Path, str], str] = layout.as_printed
    needs: str = ""
    flags: tuple[str, ...] = ()


def tables(text: str, heading: str, nth: int = 0) -> list[list[str]]:
    """The rows of the nth table whose heading row begins so; none where there is none."""
    found = re.findall(rf"^\| ?{re.escape(heading)}.*\n\|[-| ]+\|\n((?:\|.*\n?)+)", text, re.MULTILINE)
    rows = found[nth].splitlines() if len(found) > nth else []
    return [[cell.strip() for cell in row.strip()[1:-1].split("|")] for row in rows]
