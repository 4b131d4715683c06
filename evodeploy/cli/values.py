"""The values of options: numbers in a range, and lists. Errors name the option, its value and what is expected."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import typer

from evodeploy.errors import UsageError
from evodeploy.text import brief

if TYPE_CHECKING:
    from evodeploy.specs import Precision

T = TypeVar("T")

BATCH = 16384  # images run at a time, at most
CHANNEL = 1000.0  # magnitude of a mean or deviation, at most
CLASSES = 100_000  # classes named for an image, at most
IMAGES = 10**9  # images counted, at most
RANDOM = 4096  # random images, at most: all are in memory at once
RATE = 100_000  # requests per second, at most
SECONDS = 86400.0  # of measuring or waiting, at most
SEED = 2**32 - 1
SIDE = 2048  # pixels of an image's side, at most: the cost of attention grows with its fourth power
SHOWN = 60  # characters shown of a refused value

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_REAL = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_SIZE = re.compile(r"([0-9]{1,9})([KMG])", re.IGNORECASE)
_LARGEST = 1 << 40  # bytes of a workspace


def whole(name: str, low: int, high: int, about: str) -> Any:
    """Return the option `name`, a whole number from `low` to `high`."""

    def number(text: str) -> int:
        return whole_number(name, low, high, text)

    return typer.Option(name, parser=number, min=low, max=high, help=about)


def real(name: str, low: float, high: float, about: str) -> Any:
    """Return the option `name`, a finite number from `low` to `high`; an infinite `high` means no upper bound."""

    def number(text: str) -> float:
        return real_number(name, low, high, text)

    return typer.Option(name, parser=number, min=low, max=high if math.isfinite(high) else None, help=about)


def artefact(about: str) -> Any:
    """Return an argument that is a file, or the name of a checkpoint on the hub, which is fetched."""

    def file(text: str) -> Path:
        from evodeploy.models.hub import local

        return local(text)

    return typer.Argument(parser=file, help=about)


def whole_number(name: str, low: int, high: int, value: str | int) -> int:
    """Convert `value` in ASCII digits to a number. Raises UsageError for anything else, or outside the range."""
    text = str(value)
    if not _WHOLE.fullmatch(text) or not low <= int(text) <= high:
        raise _refused(name, text, f"a whole number from {low} to {high}")
    return int(text)


def real_number(name: str, low: float, high: float, value: str | float) -> float:
    """Convert `value` to a finite number. Raises UsageError for anything else, or outside the range."""
    text = str(value)
    number = float(text) if _REAL.fullmatch(text) else math.nan
    if not (low <= number <= high and math.isfinite(number)):
        raise _refused(name, text, f"a number from {low:g}" + (f" to {high:g}" if math.isfinite(high) else " up"))
    return number


def listed(name: str, text: str, expected: str, entry: Callable[[str], T], *, again: bool = False) -> tuple[T, ...]:
    """Return the entries of a list with commas, each converted by `entry`, which raises ValueError if it is wrong.

    Raises UsageError if an entry is empty or, without `again`, occurs twice.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise _refused(name, text, f"{expected}, with nothing empty between the commas")
    try:
        values = tuple(entry(part) for part in parts)
    except (ValueError, UsageError):
        raise _refused(name, text, expected) from None
    if not again and len(set(values)) < len(values):
        raise _refused(name, text, f"{expected}, each once")
    return values


def names(name: str, text: str) -> tuple[str, ...]:
    """Convert `a,b` to names. Raises UsageError if it is invalid."""
    return listed(name, text, "names with commas between them", str)


def batches(text: str) -> tuple[int, ...]:
    """Convert `1,8,32` to batch sizes. Raises UsageError if it is invalid."""
    expected = f"batch sizes from 1 to {BATCH} such as 1,8,32"
    return listed("--batch", text, expected, functools.partial(whole_number, "--batch", 1, BATCH))


def rates(text: str | None) -> tuple[float, ...] | None:
    """Convert `10,20,40` to requests per second. Raises UsageError if it is invalid."""
    if text is None:
        return None
    expected = f"requests a second above 0 and up to {RATE} such as 10,20,40"
    return listed("--rate", text, expected, functools.partial(real_number, "--rate", 0.01, RATE))


def fixed_batch(text: str) -> int | None:
    """Convert to a batch size, or to None for `dynamic`. Raises UsageError if it is invalid."""
    if text == "dynamic":
        return None
    try:
        return whole_number("--batch", 1, BATCH, text)
    except UsageError:
        raise _refused("--batch", text, f"'dynamic' or a batch size from 1 to {BATCH}") from None


def profile(text: str) -> tuple[int, int, int]:
    """Convert `1:8:32` to the smallest, best and largest batch. Raises UsageError if it is invalid."""
    expected = f"MIN:OPT:MAX such as 1:8:32, up to {BATCH}"
    parts = text.split(":")
    if len(parts) != 3:
        raise _refused("--profile", text, expected)
    try:
        low, best, high = (whole_number("--profile", 1, BATCH, part) for part in parts)
    except UsageError:
        raise _refused("--profile", text, expected) from None
    return low, best, high


def blocks(text: str | None) -> tuple[int, ...] | None:
    """Convert `4,8` to block numbers. Raises UsageError if it is invalid."""
    if text is None:
        return None
    expected = "the blocks at which selecting stages begin, such as 4,8"
    return listed("--stages", text, expected, functools.partial(whole_number, "--stages", 0, 1000))


def ratios(text: str | None, name: str = "--keep-ratio") -> tuple[float, ...] | None:
    """Convert `0.5` or `0.7,0.5` to shares of tokens. Raises UsageError if it is invalid."""
    if text is None:
        return None
    expected = "a number above 0 and up to 1 such as 0.5, or one for each stage: 0.7,0.5"
    return listed(name, text, expected, functools.partial(_ratio, name), again=True)


def ratio_range(name: str, text: str | None, *, equal: bool = False) -> tuple[float, float] | None:
    """Convert `0.2:1.0` to the lowest and highest share of tokens, which may be `equal`. Raises UsageError."""
    if text is None:
        return None
    expected = "LOW:HIGH, two numbers above 0 and up to 1 such as 0.2:1.0, the lower first"
    parts = text.split(":")
    try:
        low, high = (_ratio(name, part) for part in parts)
    except (ValueError, UsageError):
        raise _refused(name, text, expected) from None
    if low > high or (low == high and not equal):
        raise _refused(name, text, expected)
    return low, high


def keeps(text: str, name: str = "--keep") -> tuple[tuple[float, ...], ...]:
    """Convert `1.0,0.7,0.7/0.5` to keep ratios, where a slash separates stages. Raises UsageError if it is invalid."""
    expected = "ratios above 0 and up to 1 such as 1.0,0.7,0.5, or by stage 0.7/0.5"
    return listed(name, text, expected, lambda entry: tuple(_ratio(name, part) for part in entry.split("/")))


def channels(name: str, text: str | None) -> tuple[float, ...] | None:
    """Convert `0.5` or `0.485,0.456,0.406` to three numbers. Raises UsageError if it is invalid."""
    if text is None:
        return None
    expected = "one number such as 0.5, or three: 0.485,0.456,0.406"
    numbers = listed(name, text, expected, functools.partial(real_number, name, -CHANNEL, CHANNEL), again=True)
    if len(numbers) not in (1, 3):
        raise _refused(name, text, expected)
    return numbers if len(numbers) == 3 else numbers * 3


def memory(text: str | None) -> int | None:
    """Convert `512M` or `4G` to bytes. Raises UsageError if it is invalid."""
    if text is None:
        return None
    match = _SIZE.fullmatch(text)
    size = int(match[1]) << {"K": 10, "M": 20, "G": 30}[match[2].upper()] if match else 0
    if not 0 < size <= _LARGEST:
        raise _refused("--workspace", text, "a size such as 512M or 4G, at most 1024G")
    return size


def one_precision(**asked: bool) -> Precision | None:
    """Return the one precision that was chosen, or None. Raises UsageError if there are several."""
    chosen = [name for name, wanted in asked.items() if wanted]
    if len(chosen) > 1:
        raise UsageError(f"{' and '.join(f'--{name}' for name in chosen)} exclude each other: choose one")
    return cast("Precision", chosen[0]) if chosen else None


def _ratio(name: str, text: str) -> float:
    share = real_number(name, 0, 1, text)
    if share == 0:
        raise _refused(name, text, "a number above 0")
    return share


def _refused(name: str, text: str, expected: str) -> UsageError:
    return UsageError(f"{name} is '{brief(text, SHOWN)}', expected {expected}")


def for_ray(*names: object) -> None:
    """Raise UsageError for names that are not UTF-8: Ray stores the command line."""
    for name in map(str, filter(None, names)):
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"the name '{brief(name)}' is not UTF-8, which Ray does not accept: rename it") from error
