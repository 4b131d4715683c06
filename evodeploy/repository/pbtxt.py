"""The part of Protocol Buffers' text format that a model's configuration needs, so that the library is not needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Message = Mapping[str, Any]  # fields by name: text, numbers, booleans and messages, or lists of one of these kinds


class Word(str):
    """A member of an enumeration, written without quotes."""

    __slots__ = ()


def to_text(message: Message) -> str:
    """Return `message` as text, one field per line. A sequence of messages repeats its field."""
    return "".join(f"{line}\n" for line in _lines(message))


def _lines(message: Message) -> Iterator[str]:
    for name, value in message.items():
        if isinstance(value, (str, int)):
            yield f"{name}: {_scalar(value)}"
            continue
        values = [value] if isinstance(value, Mapping) else value
        if all(isinstance(item, Mapping) for item in values):
            for item in values:
                yield f"{name} {{"
                yield from (f"  {line}" for line in _lines(item))
                yield "}"
        else:
            yield f"{name}: [ {', '.join(map(_scalar, values))} ]"


def _scalar(value: str | int) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, Word)):
        return str(value)
    return f'"{"".join(map(_escaped, value.encode("utf-8", "backslashreplace")))}"'


def _escaped(byte: int) -> str:
    """Return a byte of a string in the format: ASCII letters, digits and signs as they are, others as octal numbers."""
    character = chr(byte)
    return character if 32 <= byte < 127 and character not in '"\\' else f"\\{byte:03o}"
