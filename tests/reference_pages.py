"""What the pages of docs/reference/ list, compared with what the code has."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "docs" / "reference"


def section(page: str, heading: str) -> str:
    """The text under `## heading` of a page."""
    text = (FOLDER / page).read_text(encoding="utf-8")
    assert f"\n## {heading}\n" in text, f"docs/reference/{page} has no section '{heading}'"
    return text.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def tables(page: str, heading: str) -> list[list[list[str]]]:
    """The tables of a section: rows of cells, without the heading and the line under it."""
    found = re.findall(r"(?:^\|.*\n?)+", section(page, heading), re.MULTILINE)
    return [
        [[cell.strip() for cell in row.strip()[1:-1].split("|")] for row in table.splitlines()[2:]] for table in found
    ]


def names_in(cell: str) -> list[str]:
    """The quoted names in a cell; `.b` after `a.c` is `a.b`."""
    names = re.findall(r"`([^`]+)`", cell)
    return [names[0].rpartition(".")[0] + name if name.startswith(".") else name for name in names]


def listed(page: str, heading: str, table: int = 0) -> set[str]:
    """The names in the first column of a table of a section."""
    return {name for row in tables(page, heading)[table] for name in names_in(row[0])}


def check_listed(page: str, heading: str, shown: Iterable[str], known: Iterable[str]) -> None:
    """Fail with what to do where a page does not list what is `known` to the code."""
    shown, known = set(shown), set(known)
    where = f"docs/reference/{page}, section '{heading}'"
    assert not known - shown, f"{where}: add {', '.join(sorted(known - shown))}, which the code has"
    assert not shown - known, f"{where}: remove {', '.join(sorted(shown - known))}, which the code does not have"


def check_fields(heading: str, *documents: object) -> None:
    """Compare the fields of `documents`, taken together, with those that results-file.md lists in a section."""
    shown = listed("results-file.md", heading)
    check_listed("results-file.md", heading, shown, fields_of(documents, {name for name in shown if "*" in name}))


def fields_of(documents: Iterable[object], free: Iterable[str] = ()) -> set[str]:
    """The names of all fields in any of the `documents`: `a.b` of objects, `a[].b` of lists of objects.

    Of the `free` names, `a.*`, the keys are data. A field that is null or empty in one document and has fields of its
    own in another is known by these.
    """
    found = [each for document in documents for each in _fields(document, "", set(free))]
    names = {name for name, _ in found}
    empty = names - {name for name, value in found if value}
    return names - {name for name in empty if any(other.startswith((f"{name}.", f"{name}[]")) for other in names)}


def _fields(value: object, name: str, free: set[str]) -> list[tuple[str, object]]:
    if isinstance(value, dict) and f"{name}.*" in free:
        return [(f"{name}.*", True)]
    if isinstance(value, dict):
        return [each for key, inner in value.items() for each in _fields(inner, f"{name}.{key}" if name else key, free)]
    if isinstance(value, (list, tuple)) and any(isinstance(inner, dict) for inner in value):
        return [each for inner in value for each in _fields(inner, f"{name}[]", free)]
    return [(name, value)]
