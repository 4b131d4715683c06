"""Labelled images: a folder for each class, as torchvision's ImageFolder reads it, or a CSV file of labels."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evodeploy.errors import BadFileError, UsageError
from evodeploy.files import open_regular
from evodeploy.images import IMAGE_SUFFIXES, image_paths
from evodeploy.specs import ModelInfo
from evodeploy.text import brief

_NUMBER = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True)
class Labelled:
    """An image, its path relative to the data's folder, and the model's class that it shows."""

    name: str
    path: Path
    label: int


@dataclass(frozen=True)
class LabelledImages:
    """Labelled images in a fixed order; `mapping` says how their labels became the model's classes."""

    images: tuple[Labelled, ...]
    mapping: str

    def checksum(self) -> str:
        """SHA-256 of names and labels: the same for the same task, wherever its folder lies."""
        listing = json.dumps([(image.name, image.label) for image in self.images])
        return hashlib.sha256(listing.encode()).hexdigest()

    def limited(self, count: int | None) -> LabelledImages:
        """`count` of them, evenly spread over the list, so that every class has its share."""
        if count is None or count >= len(self.images):
            return self
        chosen = tuple(self.images[i * len(self.images) // count] for i in range(count))
        return LabelledImages(chosen, self.mapping)


def labelled_images(folder: Path, labels: Path | None, info: ModelInfo) -> LabelledImages:
    """The images below `folder`, labelled by the folder of the first level that they lie in, or by the CSV `labels`.

    Class folders are taken by the model's class names where they all are ones, else in sorted order where there are as
    many as the model has classes, as it was trained with ImageFolder. The file has the columns `path`, relative to
    `folder`, and `label`, a class name or number. Raises UsageError where labels and classes cannot be matched,
    BadFileError for a file that is no such table.
    """
    if not info.num_classes:
        raise UsageError(f"{info.model} has no classifier: it gives features, which are neither right nor wrong")
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder (expected one of images in a folder for each class)")
    return _from_table(folder, labels, info) if labels is not None else _from_folders(folder, info)


def _from_folders(folder: Path, info: ModelInfo) -> LabelledImages:
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    known = {name: i for i, name in enumerate(info.class_names)}
    if names and set(names) <= known.keys():
        classes, mapping = known, "class folders taken by the model's class names"
    elif len(names) == info.num_classes:
        classes = {name: i for i, name in enumerate(names)}
        mapping = f"class folders taken in sorted order: {names[0]} is {info.label(0)}"
    else:
        what = f"class names of the model ({', '.join(info.class_names[:3])}, …)" if known else "known by name"
        raise UsageError(
            f"{folder} has {len(names)} class folders{_first(names)}, which are neither all {what} nor as many as its "
            f"{info.num_classes} classes: give --labels FILE.csv with the columns path,label"
        )
    images = [
        Labelled(str(path.relative_to(folder)), path, classes[path.relative_to(folder).parts[0]])
        for path in image_paths(folder)
        if path.parent != folder
    ]
    if not images:
        raise UsageError(f"{folder} has class folders without images: expected {', '.join(sorted(IMAGE_SUFFIXES))}")
    return LabelledImages(tuple(images), mapping)


def _from_table(folder: Path, table: Path, info: ModelInfo) -> LabelledImages:
    known = {name: i for i, name in enumerate(info.class_names)}
    try:
        with io.TextIOWrapper(open_regular(table, "a CSV file of labels"), "utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise BadFileError(f"{table} is not a CSV file: {error}") from error
    if not rows or not {"path", "label"} <= rows[0].keys():
        raise BadFileError(f"{table} lacks the columns path,label, or has no rows: write them in its first line")
    images = []
    for line, row in enumerate(rows, 2):
        label = row["label"] or ""
        index = known.get(label, int(label) if _NUMBER.fullmatch(label) else -1)
        if not row["path"] or not 0 <= index < info.num_classes:
            raise BadFileError(
                f"{table}, line {line}: '{row['path']}' has the label '{brief(label, 60)}', expected a class name of "
                f"the model or a number from 0 to {info.num_classes - 1}"
            )
        images.append(Labelled(row["path"], folder / row["path"], index))
    return LabelledImages(tuple(images), f"labels taken from {table}")


def _first(names: Sequence[str]) -> str:
    return f" ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})" if names else ""
