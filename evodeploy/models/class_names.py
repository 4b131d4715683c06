"""What a network's classes are called: by a file of names, by its checkpoint, or by ImageNet."""

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

    A JSON list of names; a JSON object of numbers to names, or to lists that end with one, as ImageNet's own index is
    published; any other file holds one name a line. Raises UsageError where it is missing, BadFileError where it holds
    no names.
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
        raise ValueError("expected a list of names, or an object of numbers to names")
    return values


def fitting(names: tuple[str, ...], num_classes: int, source: object) -> tuple[str, ...]:
    """`names` from `source`, where they are as many as the classes; raises UsageError otherwise."""
    if len(names) != num_classes:
        raise UsageError(f"{source} lists {len(names)} class names, expected one for each of the {num_classes} classes")
    return names


@functools.cache
def imagenet_names() -> tuple[str, ...]:
    """ImageNet's 1000 classes in their usual order, each by the first of its WordNet lemmas."""
    return _lines("imagenet.txt")


@functools.cache
def imagenet_wnids() -> tuple[str, ...]:
    """The WordNet ids of ImageNet's 1000 classes (n01440764, …): their usual order is the sorted one."""
    return _lines("imagenet_wnids.txt")


def _lines(name: str) -> tuple[str, ...]:
    text = importlib.resources.files("evodeploy.models").joinpath(name).read_text(encoding="utf-8")
    return tuple(text.splitlines())
