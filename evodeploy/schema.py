"""Documents from outside, checked once, where they enter: types, ranges, lengths. Behind this door nothing is checked.

A `Rule` takes a plain JSON value and gives what the program works with, or raises SchemaError with the field, what was
got and what was expected. Rules are put together as the documents are: `sequence(number(0, 1), 1, 8)`.
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

BYTES = 10_000_000  # of a document, where its door sets no other limit; 21 000 class names take one
DEPTH = 32  # objects and lists inside each other; ours have seven
DIGITS = 30  # of a whole number
_SHOWN = 60  # characters of a wrong value
_MISSING = object()
_BRACKETS = re.compile(r'[\[{]|[\]}]|"(?:[^"\\]|\\.)*"?', re.DOTALL)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class SchemaError(ValueError):
    """The `field` of a document is `got` and not as `expected`; without a name it is the document itself."""

    def __init__(self, field: str, got: object, expected: str) -> None:
        super().__init__(f"{brief(field, 120) or 'it'} is {_shown(got)}, expected {expected}")


def _shown(got: object) -> str:
    if got is _MISSING:
        return "missing"
    if isinstance(got, (list, tuple)):
        return f"a list of {len(got)}"
    if isinstance(got, dict):
        return f"an object of {len(got)}"
    if isinstance(got, int) and abs(got) >= 10**DIGITS:  # Python itself refuses to write the longest
        return f"a number of more than {DIGITS} digits"
    return brief(json.dumps(got, ensure_ascii=False) if isinstance(got, (str, bool, type(None))) else str(got), _SHOWN)


@dataclass(frozen=True)
class Rule(Generic[T]):
    """What a value must be, in words, and how it is read."""

    expected: str
    read: Callable[[Any, str], T]

    def __call__(self, value: Any, field: str = "") -> T:
        """Read `value`, which a document calls `field`; raises SchemaError."""
        return self.read(value, field)


def _rule(expected: str, fits: Callable[[Any], bool]) -> Rule[Any]:
    def read(value: Any, field: str) -> Any:
        if not fits(value):
            raise SchemaError(field, value, expected)
        return value

    return Rule(expected, read)


def whole(low: int, high: int) -> Rule[int]:
    """A whole number from `low` to `high`; true and 3.0 are none."""
    return _rule(f"a whole number from {low} to {high}", lambda value: type(value) is int and low <= value <= high)


def number(low: float, high: float, *, above: bool = False) -> Rule[float]:
    """A finite number from `low` to `high`, or `above` the lower bound and no more than the upper."""
    words = f"a number above {low:g}, up to {high:g}" if above else f"a number from {low:g} to {high:g}"

    def fits(value: Any) -> bool:
        return type(value) in (int, float) and low <= value <= high and not (above and value == low)

    return Rule(words, lambda value, field: float(_rule(words, fits)(value, field)))


def text(limit: int, *, least: int = 0) -> Rule[str]:
    """Text of `least` to `limit` characters."""
    return _rule(f"text of {least} to {limit} characters", lambda v: isinstance(v, str) and least <= len(v) <= limit)


def matching(pattern: str, expected: str) -> Rule[str]:
    """Text that `pattern` matches as a whole; the pattern must bound its length."""
    compiled = re.compile(pattern, re.ASCII)
    return _rule(expected, lambda value: isinstance(value, str) and compiled.fullmatch(value) is not None)


def one_of(*values: str, words: str = "") -> Rule[Any]:
    """One of these texts, which `words` describe where they are many."""
    return _rule(words or " or ".join(values), lambda value: isinstance(value, str) and value in values)


def boolean() -> Rule[bool]:
    """True or false."""
    return _rule("true or false", lambda value: isinstance(value, bool))


def optional(rule: Rule[T]) -> Rule[T | None]:
    """What `rule` takes, or null."""
    return Rule(f"{rule.expected}, or null", lambda value, field: None if value is None else rule(value, field))


def sequence(rule: Rule[T], least: int, most: int) -> Rule[tuple[T, ...]]:
    """A list of `least` to `most` values that each fit `rule`, as a tuple."""
    words = f"a list of {least}" if least == most else f"a list of {least} to {most}"

    def read(value: Any, field: str) -> tuple[T, ...]:
        if not isinstance(value, (list, tuple)) or not least <= len(value) <= most:
            raise SchemaError(field, value, words)
        return tuple(rule(item, f"{field}[{index}]") for index, item in enumerate(value))

    return Rule(words, read)


def mapping(rule: Rule[T], most: int) -> Rule[dict[str, T]]:
    """An object of at most `most` values that each fit `rule`, under names of at most 300 characters."""
    words, named = f"an object of at most {most}", text(300)

    def read(value: Any, field: str) -> dict[str, T]:
        if not isinstance(value, dict) or len(value) > most:
            raise SchemaError(field, value, words)
        return {named(name, f"a name in {field or 'it'}"): rule(item, _at(field, name)) for name, item in value.items()}

    return Rule(words, read)


def document(needed: Mapping[str, Rule[Any]], known: Mapping[str, Rule[Any]] | None = None) -> Rule[dict[str, Any]]:
    """An object with the `needed` fields; those and the `known` ones fit their rules, all others are kept."""

    def read(value: Any, field: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise SchemaError(field, value, "an object")
        given = {**needed, **{name: rule for name, rule in (known or {}).items() if name in value}}
        return value | {name: rule(_field(value, name, field, rule), _at(field, name)) for name, rule in given.items()}

    return Rule("an object", read)


def record(kind: type[T], make: Callable[..., T] | None = None, *, strict: bool = False, **rules: Rule[Any]) -> Rule[T]:
    """An object as the dataclass `kind`, with a rule for each of its fields, made by `make` where fields must agree.

    A field may be absent where it has a default. Fields of a later version are left out, or refused if `strict`.
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
    """The JSON `content` as plain values; raises ValueError for what no reader should have to take.

    That is more than `limit` bytes, more than DEPTH values inside each other, NaN and Infinity, numbers that overflow,
    and text that cannot be encoded.
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
    """The JSON in the regular file `path`; raises UsageError where it cannot be read, BadFileError where it is none."""
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
    """Brackets outside of strings; without a look where there are too few to nest."""
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
