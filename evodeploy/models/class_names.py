"""Names of a network's classes: read from a file, or ImageNet's."""

from __future__ import annotations

import functools
import importlib.resources
from pathlib import Path
from typing import Any

from evodeploy.errors import BadFileError, UsageError
from evodeploy.files import open_regular
from evodeploy.schema import BYTES, read_json
from evodeploy.specs import LARGEST_NAME


def read_class_names(path: Path) -> tuple[str, ...]:
    """Return the names in `path`, in the order of the classes.

    A JSON file holds a list of names, or an object that maps numbers to names or to lists that end with a name, like
    ImageNet's published index. Any other file holds one name per line. Raises UsageError if the file is missing,
    BadFileError if it is not a valid list of names.
    """
    with open_regular(path, "a file of class names: one a line, or JSON", BYTES) as file:
        data = file.read()
    try:
        text = data.decode("utf-8-sig")
        names = _from_json(read_json(text)) if path.suffix.lower() == ".json" else text.splitlines()
    except ValueError as error:
        raise BadFileError(f"{path} is not a readable file of class names: {error}") from error
    names = [name.strip() for name in names]
    while names and not names[-1]:
        names.pop()
    if not names or not all(names):
        missing = f"line {names.index('') + 1} is empty" if names else "it is empty"
        raise BadFileError(f"{path} is not a file of class names: {missing}, expected one name a line, or JSON")
    longest = max(map(len, names))
    if longest > LARGEST_NAME:
        raise BadFileError(f"{path} has a class name of {longest} characters, expected {LARGEST_NAME} at most")
    return tuple(names)


def _from_json(values: Any) -> list[str]:
    if isinstance(values, dict):
        if sorted(values) != sorted(map(str, range(len(values)))):
            raise ValueError("its keys are not the numbers of the classes, from 0 without a gap")
        values = [values[str(index)] for index in range(len(values))]
        values = [value[-1] if isinstance(value, list) and value else value for value in values]
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError("expected a list of names, or an object from numbers to names")
    return values


def fitting(names: tuple[str, ...], num_classes: int, source: object) -> tuple[str, ...]:
    """Return `names` from `source`; raises UsageError unless there is one for each class."""
    if len(names) != num_classes:
        raise UsageError(f"{source} lists {len(names)} class names, expected one for each of the {num_classes} classes")
    return names


@functools.cache
def imagenet_names() -> tuple[str, ...]:
    """Return the names of ImageNet's 1000 classes in the usual order: the first WordNet lemma of each."""
    return _lines("imagenet.txt")


@functools.cache
def imagenet_wnids() -> tuple[str, ...]:
    """Return the WordNet ids of ImageNet's 1000 classes (n01440764, …) in the usual order, which is sorted."""
    return _lines("imagenet_wnids.txt")


def _lines(name: str) -> tuple[str, ...]:
    text = importlib.resources.files("evodeploy.models").joinpath(name).read_text(encoding="utf-8")
    return tuple(text.splitlines())
