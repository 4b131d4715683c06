"""Validation of documents from outside: types, ranges and lengths are checked once, when a document is read.

A `Rule` takes a plain JSON value and returns the value that the program works with, or raises SchemaError with the
field, its value and what was expected. Rules nest like the documents: `sequence(number(0, 1), 1, 8)`.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from evodeploy.errors import BadFileError
from evodeploy.files import open_regular
from evodeploy.text import brief

T = TypeVar("T")

BYTES = 10_000_000  # of a document, if its reader sets no other limit; 21 000 class names fit into it
DEPTH = 32  # of nested objects and lists; the project's own documents have seven levels
DIGITS = 30  # of a whole number
_SHOWN = 60  # characters of a wrong value
_MISSING = object()
_BRACKETS = re.compile(r'[\[{]|[\]}]|"(?:[^"\\]|\\.)*"?', re.DOTALL)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class SchemaError(ValueError):
    """The `field` of a document is `got` instead of `expected`. An empty `field` is the document itself."""

    def __init__(self, field: str, got: object, expected: str) -> None:
        super().__init__(f"{brief(field, 120) or 'it'} is {_shown(got)}, expected {expected}")


def _shown(got: object) -> str:
    if got is _MISSING:
        return "missing"
    if isinstance(got, (list, tuple)):
        return f"a list of {len(got)}"
    if isinstance(got, dict):
        return f"an object of {len(got)}"
    if isinstance(got, int) and abs(got) >= 10**DIGITS:  # Python itself refuses to print very long numbers
        return f"a number of more than {DIGITS} digits"
    return brief(json.dumps(got, ensure_ascii=False) if isinstance(got, (str, bool, type(None))) else str(got), _SHOWN)


@dataclass(frozen=True)
class Rule(Generic[T]):
    """What a value must be, in words, and the function that reads it."""

    expected: str
    read: Callable[[Any, str], T]

    def __call__(self, value: Any, field: str = "") -> T:
        """Read `value`, which is called `field` in the document. Raises SchemaError if it breaks the rule."""
        return self.read(value, field)


def _rule(expected: str, fits: Callable[[Any], bool]) -> Rule[Any]:
    def read(value: Any, field: str) -> Any:
        if not fits(value):
            raise SchemaError(field, value, expected)
        return value

    return Rule(expected, read)


def whole(low: int, high: int) -> Rule[int]:
    """Return the rule of a whole number from `low` to `high`; true and 3.0 are refused."""
    return _rule(f"a whole number from {low} to {high}", lambda value: type(value) is int and low <= value <= high)


def number(low: float, high: float, *, above: bool = False) -> Rule[float]:
    """Return the rule of a finite number from `low` to `high`; with `above`, `low` itself is refused."""
    words = f"a number above {low:g}, up to {high:g}" if above else f"a number from {low:g} to {high:g}"

    def fits(value: Any) -> bool:
        return type(value) in (int, float) and low <= value <= high and not (above and value == low)

    return Rule(words, lambda value, field: float(_rule(words, fits)(value, field)))


def text(limit: int, *, least: int = 0) -> Rule[str]:
    """Return the rule of a text of `least` to `limit` characters."""
    return _rule(f"text of {least} to {limit} characters", lambda v: isinstance(v, str) and least <= len(v) <= limit)


def matching(pattern: str, expected: str) -> Rule[str]:
    """Return the rule of a text that `pattern` matches as a whole; the pattern must bound its length."""
    compiled = re.compile(pattern, re.ASCII)
    return _rule(expected, lambda value: isinstance(value, str) and compiled.fullmatch(value) is not None)


def one_of(*values: str, words: str = "") -> Rule[Any]:
    """Return the rule of one of these texts; `words` describes them if there are many."""
    return _rule(words or " or ".join(values), lambda value: isinstance(value, str) and value in values)


def boolean() -> Rule[bool]:
    """Return the rule of true or false."""
    return _rule("true or false", lambda value: isinstance(value, bool))


def optional(rule: Rule[T]) -> Rule[T | None]:
    """Return the rule of a value that `rule` accepts, or null."""
    return Rule(f"{rule.expected}, or null", lambda value, field: None if value is None else rule(value, field))


def sequence(rule: Rule[T], least: int, most: int) -> Rule[tuple[T, ...]]:
    """Return the rule of a list of `least` to `most` values that each fit `rule`, read as a tuple."""
    words = f"a list of {least}" if least == most else f"a list of {least} to {most}"

    def read(value: Any, field: str) -> tuple[T, ...]:
        if not isinstance(value, (list, tuple)) or not least <= len(value) <= most:
            raise SchemaError(field, value, words)
        return tuple(rule(item, f"{field}[{index}]") for index, item in enumerate(value))

    return Rule(words, read)


def mapping(rule: Rule[T], most: int) -> Rule[dict[str, T]]:
    """Return the rule of an object of at most `most` values that fit `rule`, with names of at most 300 characters."""
    words, named = f"an object of at most {most}", text(300)

    def read(value: Any, field: str) -> dict[str, T]:
        if not isinstance(value, dict) or len(value) > most:
            raise SchemaError(field, value, words)
        return {named(name, f"a name in {field or 'it'}"): rule(item, _at(field, name)) for name, item in value.items()}

    return Rule(words, read)


def document(needed: Mapping[str, Rule[Any]], known: Mapping[str, Rule[Any]] | None = None) -> Rule[dict[str, Any]]:
    """Return the rule of an object with the `needed` and perhaps the `known` fields; other fields pass unchecked."""

    def read(value: Any, field: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise SchemaError(field, value, "an object")
        given = {**needed, **{name: rule for name, rule in (known or {}).items() if name in value}}
        return value | {name: rule(_field(value, name, field, rule), _at(field, name)) for name, rule in given.items()}

    return Rule("an object", read)


def record(kind: type[T], make: Callable[..., T] | None = None, *, strict: bool = False, **rules: Rule[Any]) -> Rule[T]:
    """Return the rule of an object that is read as the dataclass `kind`, by `make` if its fields must be consistent.

    Each field has a rule; one with a default may be missing. Unknown fields are ignored, or refused if `strict`.
    """
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]
    needed = {each.name for each in fields if each.default is each.default_factory is dataclasses.MISSING}
    if {each.name for each in fields} != rules.keys():
        raise TypeError(f"{kind} and its rules have different fields: { ({f.name for f in fields} ^ rules.keys()) }")

    def read(value: Any, field: str) -> T:
        if not isinstance(value, dict):
            raise SchemaError(field, value, "an object")
        for name in value.keys() - rules.keys() if strict else ():
            raise SchemaError(_at(field, name), value[name], "no such field: this version does not know it")
        given = {name: rule for name, rule in rules.items() if name in value or name in needed}
        return (make or kind)(**{n: rule(_field(value, n, field, rule), _at(field, n)) for n, rule in given.items()})

    return Rule("an object", read)


def _field(value: dict[str, Any], name: str, holder: str, rule: Rule[Any]) -> Any:
    if name not in value:
        raise SchemaError(_at(holder, name), _MISSING, rule.expected)
    return value[name]


def _at(holder: str, name: object) -> str:
    return f"{holder}.{name}" if holder else str(name)


def read_json(content: str | bytes, limit: int = BYTES) -> Any:
    """Read the JSON `content` as plain values. Raises ValueError for content that no reader should have to accept.

    That is more than `limit` bytes, values nested more than DEPTH deep, NaN and Infinity, numbers that overflow, and
    text that cannot be encoded.
    """
    data = content.encode() if isinstance(content, str) else content
    if len(data) > limit:
        raise ValueError(f"{len(data)} bytes, expected at most {limit}")
    words = data.decode()
    if _depth(words) > DEPTH:
        raise ValueError(f"values nested more than {DEPTH} deep")
    value = json.loads(words, parse_int=_whole, parse_float=_finite, parse_constant=_finite)
    if _SURROGATE.search(words):
        json.dumps(value, ensure_ascii=False).encode()
    return value


def read_json_file(path: Path, what: str, limit: int = BYTES) -> Any:
    """Read the JSON file `path`. Raises UsageError if it cannot be read, BadFileError if it is not valid JSON."""
    with open_regular(path, what, limit) as file:
        data = file.read(limit + 1)
    try:
        return read_json(data, limit)
    except ValueError as error:
        raise BadFileError(f"{path} is not readable JSON (expected {what}): {error}") from error


def _depth(words: str) -> int:
    depth = deepest = 0
    for found in _brackets(words):
        depth += 1 if found in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _brackets(words: str) -> Iterable[str]:
    """Yield the brackets outside of strings, or none if there are too few to nest too deep."""
    if words.count("[") + words.count("{") <= DEPTH:
        return ()
    return (found[0] for found in _BRACKETS.finditer(words) if found[0][0] != '"')


def _whole(digits: str) -> int:
    if len(digits) > DIGITS:
        raise ValueError(f"a number of {len(digits)} digits, expected at most {DIGITS}")
    return int(digits)


def _finite(words: str) -> float:
    value = float(words)
    if not abs(value) < float("inf"):
        raise ValueError(f"the number {brief(words, _SHOWN)}, expected finite ones")
    return value
