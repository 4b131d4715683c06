"""Matching of the data's classes to the model's: by name, by WordNet id, by their order, or by a file."""

from __future__ import annotations

import csv
import functools
import io
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from evodeploy.datasets.examples import Label
from evodeploy.errors import BadFileError, UsageError
from evodeploy.files import open_regular
from evodeploy.models.class_names import imagenet_names, imagenet_wnids
from evodeploy.schema import BYTES, read_json
from evodeploy.specs import ModelInfo
from evodeploy.text import brief

T = TypeVar("T")

WNID = re.compile(r"n[0-9]{8}")
_NUMBER = re.compile(r"[0-9]{1,9}")
_EXPECTED = 'CSV with the columns name,class, or a JSON object {"name": class}'


def stated_number(label: Label) -> int | None:
    """Return the number in `label`: a number, also as text, or that of the ImageNet class with this WordNet id."""
    if isinstance(label, str) and not _NUMBER.fullmatch(label):
        return _numbers_of_wnids().get(label)
    return int(label)


@functools.cache
def _numbers_of_wnids() -> dict[str, int]:
    return {wnid: number for number, wnid in enumerate(imagenet_wnids())}


class Classes:
    """The classes of a model, by the labels that data may use for them."""

    def __init__(self, info: ModelInfo) -> None:
        self.info = info
        counts = Counter(info.class_names)  # a name that two classes share identifies neither
        self._names = {name: number for number, name in enumerate(info.class_names) if counts[name] == 1}
        self._wnids = _numbers_of_wnids() if has_imagenet_classes(info) else {}

    def number(self, label: Label) -> int | None:
        """Return the class of `label`: one of the names, a number, also as text, or a WordNet id. Otherwise None."""
        if isinstance(label, str):
            if (found := self._names.get(label, self._wnids.get(label))) is not None:
                return found
            if not _NUMBER.fullmatch(label):
                return None
        return int(label) if 0 <= int(label) < self.info.num_classes else None

    def all_names(self, labels: Collection[str]) -> bool:
        """Return whether all `labels` are names of classes."""
        return self._names.keys() >= {*labels}

    def all_wnids(self, labels: Collection[str]) -> bool:
        """Return whether all `labels` are WordNet ids of classes."""
        return self._wnids.keys() >= {*labels}

    @property
    def expected(self) -> str:
        """The valid labels, in words."""
        wnid = ", a WordNet id such as n01440764" if self._wnids else ""
        return f"a class name of the model{wnid} or a number from 0 to {self.info.num_classes - 1}"


@dataclass(frozen=True)
class Matching:
    """The model's class of each of the data's labels, and a description of how they were matched."""

    numbers: Mapping[Label, int]
    words: str


def matched(
    title: str,
    labels: Collection[Label],
    names: tuple[str, ...],
    info: ModelInfo,
    class_map: Path | None = None,
    folders: bool = False,
) -> Matching:
    """Match each of `labels` to a class of the model; `names` are the data's classes in its order, if it has names.

    Whole numbers are the model's own. Names are matched by the file `class_map` if there is one; by the model's class
    names if all of them are such names; by WordNet id if the model has ImageNet's classes; in the data's order if there
    are as many as the model has classes. `folders` says, for the description, that the data's classes are folders.
    Raises UsageError if none of this fits, BadFileError if a number is not a class.
    """
    classes, what = Classes(info), "class folders" if folders else "classes"
    used = names if folders else tuple(name for name in names if name in labels) or names
    if class_map is not None:
        return Matching(_mapped(class_map, labels, classes), f"{what} taken by {class_map}")
    numbers: dict[Label, int] = {label: label for label in labels if isinstance(label, int)}
    for number in numbers.values():
        if not 0 <= number < info.num_classes:
            raise BadFileError(
                f"{title} has the label {number}, expected a number from 0 to {info.num_classes - 1}: the model has "
                f"{info.num_classes} classes"
            )
    if numbers and len(numbers) == len(labels):
        return Matching(numbers, "labels are the model's class numbers")
    if numbers:
        raise UsageError(f"{title} has labels that are numbers and labels that are names: give one kind")
    if used and classes.all_names(used):
        words = f"{what} matched by the model's class names"
    elif used and classes.all_wnids(used):
        words = f"{what} matched by WordNet id, as ImageNet's classes"
    elif len(names) == info.num_classes:
        order = "sorted order" if names == tuple(sorted(names)) else "their order"
        numbers = {name: number for number, name in enumerate(names)}
        unlike = [name for number, name in enumerate(names) if name.isdecimal() and int(name[:9]) != number]
        shown = ", ".join(f"{name} is {info.label(numbers[name])}" for name in dict.fromkeys((names[0], *unlike[:1])))
        return Matching(numbers, f"{what} taken in {order}: {shown}")
    else:
        raise UsageError(_unmatched(title, used, what, info))
    return Matching({name: found for name in used if (found := classes.number(name)) is not None}, words)


def _unmatched(title: str, names: tuple[str, ...], what: str, info: ModelInfo) -> str:
    known = f"class names of the model ({', '.join(info.class_names[:3])}, …)" if info.class_names else "known by name"
    first = f" ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})" if names else ""
    return (
        f"{title} has {len(names)} {what}{brief(first)}, which are neither all {known} nor as many as its "
        f"{info.num_classes} classes: give --class-map FILE ({_EXPECTED}),"
        " or --labels FILE.csv with the columns path,label"
    )


def has_imagenet_classes(info: ModelInfo) -> bool:
    """Return whether the model's classes are ImageNet's 1000 in their usual order, by the evidence of its class names.

    Lists of ImageNet's names differ in some classes, so half of them are enough.
    """
    pairs = zip(info.class_names, imagenet_names(), strict=False)
    alike = sum(name.split(",")[0].casefold() == ours.split(" (")[0].casefold() for name, ours in pairs)
    return info.num_classes == len(imagenet_wnids()) and (
        not info.class_names or alike >= info.num_classes // 2 or (info.class_names == imagenet_wnids())
    )


def _mapped(path: Path, labels: Collection[Label], classes: Classes) -> dict[Label, int]:
    table = _read_map(path)
    numbers: dict[Label, int] = {}
    for label in labels:
        name = str(label)
        number = classes.number(table[name]) if name in table else None
        if number is None:
            given = f"gives '{brief(str(table[name]), 60)}' for" if name in table else "lacks"
            raise BadFileError(f"{path} {given} the data's class '{brief(name, 60)}', expected {classes.expected}")
        numbers[label] = number
    return numbers


def _read_map(path: Path) -> dict[str, Label]:
    with open_regular(path, f"a mapping of classes: {_EXPECTED}", BYTES) as file:
        data = file.read()
    try:
        text = data.decode("utf-8-sig")
        if text.lstrip().startswith("{"):
            table = read_json(text)
            json.loads(text, object_pairs_hook=_once)
            if all(isinstance(each, str) or type(each) is int for each in table.values()):
                return dict(table)
        else:
            rows = list(csv.DictReader(io.StringIO(text, newline="")))
            if rows and {"name", "class"} <= rows[0].keys():
                return _once((row["name"], row["class"] or "") for row in rows)
    except (ValueError, csv.Error) as error:
        raise BadFileError(f"{path} is not a mapping of classes: {error}: expected {_EXPECTED}") from error
    raise BadFileError(f"{path} is not a mapping of classes: expected {_EXPECTED}")


def _once(pairs: Iterable[tuple[str, T]]) -> dict[str, T]:
    """Return the mapping of `pairs`. Raises ValueError if a name occurs twice."""
    table: dict[str, T] = {}
    for name, value in pairs:
        if name in table:
            raise ValueError(f"it names '{brief(name, 60)}' twice")
        table[name] = value
    return table
