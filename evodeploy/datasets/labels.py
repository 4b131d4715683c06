"""Files of labels: a CSV table, ImageNet's validation labels in their four forms, and ReaL labels."""

from __future__ import annotations

import csv
import io
import posixpath
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from evodeploy.datasets.classes import WNID
from evodeploy.errors import BadFileError, UsageError, needs
from evodeploy.files import open_regular
from evodeploy.models.class_names import imagenet_wnids
from evodeploy.schema import SchemaError, read_json_file, sequence, whole
from evodeploy.text import brief, reason

LARGEST = 64 << 20  # bytes of a file of labels
META = 1 << 20  # bytes of the devkit's file
VALIDATION = 50_000  # images of ImageNet's validation set
NUMBERED = re.compile(r"ILSVRC2012_val_([0-9]{8})")  # a validation image, from 1
SYNSETS = ("meta.mat", "map_clsloc.txt")  # they contain the WordNet id of each number of the devkit

_EXPECTED = (
    "a CSV table with the columns path,label or ImageId,PredictionString, lines of a name and a label, or for each "
    "validation image of ImageNet a line with its WordNet id or with the devkit's number"
)
_REAL = sequence(sequence(whole(0, 999), 0, 1000), 1, 10 * VALIDATION)


@dataclass(frozen=True)
class Entry:
    """A label, and its line in the file of labels."""

    label: str
    line: int


@dataclass(frozen=True)
class Labels:
    """The labels in a file, by key. `key_of` makes the key from the name of an image, or returns None.

    The keys are paths if the file names paths, relative to the data's folder.
    """

    file: Path
    by_key: dict[str, Entry]
    key_of: Callable[[str], str | None]
    paths: bool = False


def read_labels(path: Path) -> Labels:
    """Recognise the form of `path` by its content, and read it.

    Raises BadFileError if it has none of the forms, UsageError for the devkit's numbers if no file states what classes
    they are.
    """
    with open_regular(path, "a file of labels", LARGEST) as file:
        data = file.read()
    try:
        text = data.decode("utf-8-sig")
        table = csv.DictReader(io.StringIO(text, newline=""))
        rows = [(table.line_num, row) for row in table] if "," in text.split("\n", 1)[0] else []
    except (ValueError, csv.Error) as error:
        raise BadFileError(f"{path} is not a file of labels: {error}: expected {_EXPECTED}") from error
    columns = {*rows[0][1]} if rows else set()
    if {"path", "label"} <= columns:
        return _by_path(path, [(line, row["path"], row["label"]) for line, row in rows])
    if {"ImageId", "PredictionString"} <= columns:
        entries = [(line, row["ImageId"], (row["PredictionString"] or "").partition(" ")[0]) for line, row in rows]
        return Labels(path, _entries(path, entries), lambda name: PurePosixPath(name).stem)
    lines = text.split()
    if lines and len(lines) == len(text.splitlines()):
        if all(map(WNID.fullmatch, lines)):
            return _by_number(path, lines)
        if all(line.isascii() and line.isdigit() and len(line) < 5 for line in lines):
            return _by_number(path, _from_devkit(path, lines))
    pairs = [(number, line.rsplit(maxsplit=1)) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if pairs and not columns and all(len(pair) == 2 for _, pair in pairs):
        return _by_path(path, [(number, name, label) for number, (name, label) in pairs])
    raise BadFileError(f"{path} is not a file of labels: expected {_EXPECTED}")


def _by_path(path: Path, entries: Sequence[tuple[int, str, str | None]]) -> Labels:
    plain = [(line, posixpath.normpath(name) if name else name, label) for line, name, label in entries]
    return Labels(path, _entries(path, plain), lambda name: name, paths=True)


def _entries(path: Path, entries: Sequence[tuple[int, str, str | None]]) -> dict[str, Entry]:
    """Return lines, names and labels as entries by name. Raises BadFileError if an image has two labels."""
    by_key: dict[str, Entry] = {}
    for line, name, label in entries:
        if not name or "\0" in name:
            raise BadFileError(f"{path}, line {line} names no image")
        if name in by_key:
            raise BadFileError(
                f"{path}, line {line}: '{brief(name, 60)}' has a label already, in line {by_key[name].line}"
            )
        by_key[name] = Entry(label or "", line)
    return by_key


def _by_number(path: Path, labels: Sequence[str]) -> Labels:
    if len(labels) != VALIDATION:  # if a line were missing, all images after it would get the wrong label
        raise BadFileError(
            f"{path} has {len(labels)} labels without names, expected {VALIDATION}: one for each validation image of "
            "ImageNet"
        )
    return Labels(path, {str(line): Entry(label, line) for line, label in enumerate(labels, 1)}, number_of)


def number_of(name: str) -> str | None:
    """Return the number in the name of an image of ImageNet's validation set, or None."""
    found = NUMBERED.search(name)
    return str(int(found[1])) if found else None


def _from_devkit(path: Path, numbers: Sequence[str]) -> list[str]:
    """Return the WordNet ids of the devkit's class numbers, whose order differs from that of models.

    They are in the devkit's meta.mat or map_clsloc.txt in the same folder; no order is guessed.
    """
    companion = next((path.with_name(name) for name in SYNSETS if path.with_name(name).is_file()), None)
    if companion is None:
        raise UsageError(
            f"{path} holds the devkit's class numbers, which are not the model's: put {' or '.join(SYNSETS)} of "
            "the devkit next to it, which give their meaning"
        )
    table = _meta(companion) if companion.suffix == ".mat" else _map_clsloc(companion)
    if sorted(table.values()) != list(imagenet_wnids()):
        raise BadFileError(
            f"{companion} does not name ImageNet's 1000 classes once each: take the devkit's of ILSVRC2012"
        )
    unknown = next(((line, number) for line, number in enumerate(numbers, 1) if int(number) not in table), None)
    if unknown is not None:
        raise BadFileError(f"{path}, line {unknown[0]}: {companion} lists no class {unknown[1]}, expected 1 to 1000")
    return [table[int(number)] for number in numbers]


def _meta(path: Path) -> dict[int, str]:
    with needs("data"):
        import scipy.io
    with open_regular(path, "the devkit's meta.mat", META) as file:
        try:
            synsets: Any = scipy.io.loadmat(file, squeeze_me=True, variable_names=["synsets"])["synsets"]
            rows = zip(synsets["ILSVRC2012_ID"], synsets["WNID"], synsets["num_children"], strict=True)
            return {int(number): str(wnid) for number, wnid, children in rows if children == 0}  # others: no classes
        except Exception as error:  # the reader raises errors of any type for a damaged file
            raise BadFileError(f"{path} is not the devkit's meta.mat: {reason(error)}") from error


def _map_clsloc(path: Path) -> dict[int, str]:
    """Read lines of a WordNet id, its number and its name."""
    with open_regular(path, "the devkit's map_clsloc.txt", META) as file:
        text = file.read().decode("utf-8", "replace")
    rows = [line.split() for line in text.splitlines()]
    if not all(len(row) >= 2 and row[1].isdecimal() and len(row[1]) < 5 for row in rows):
        raise BadFileError(f"{path} is not the devkit's map_clsloc.txt: expected lines such as n02119789 1 kit_fox")
    return {int(row[1]): row[0] for row in rows}


def read_real_labels(path: Path) -> tuple[tuple[int, ...], ...]:
    """Return the ReaL labels: for each validation image of ImageNet, by its number, the classes that it shows, or none.

    Raises BadFileError if the file is not such a list.
    """
    try:
        labels: tuple[tuple[int, ...], ...] = _REAL(read_json_file(path, "ReaL labels", LARGEST), "a list")
    except SchemaError as error:
        raise BadFileError(f"{path} holds no ReaL labels: {error}") from error
    if len(labels) != VALIDATION:
        raise BadFileError(f"{path} has labels of {len(labels)} images, expected {VALIDATION}, as in the ReaL labels")
    return labels
