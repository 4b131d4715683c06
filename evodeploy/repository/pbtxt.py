"""Protocol buffers' text format, as much of it as a model's configuration needs: this spares users the library."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Message = Mapping[str, Any]  # fields by name: text, numbers, truth values and messages, or lists of one kind of them


class Word(str):
    """A member of an enumeration: text without quotes."""

    __slots__ = ()


def to_text(message: Message) -> str:
    """`message` as text, a field a line; a sequence of messages repeats its field."""
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
    """A byte of a string as the format writes it: all but ASCII letters, digits and signs as octal numbers."""
    character = chr(byte)
    return character if 32 <= byte < 127 and character not in '"\\' else f"\\{byte:03o}"
