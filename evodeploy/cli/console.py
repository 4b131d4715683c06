"""What all commands share: their common options, and where words go. Results go to stdout, progress to stderr."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

import typer

from evodeploy.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from evodeploy.specs import Precision

T = TypeVar("T")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout; all else goes to stderr.")]
Force = Annotated[bool, typer.Option("--force", "-f", help="Replace the output where it exists.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads; all usable cores by default.")]


def note(text: str) -> None:
    """A line for whoever watches: on stderr."""
    print(text, file=sys.stderr, flush=True)


def result(text: str) -> None:
    """A line of what was asked for: on stdout."""
    print(text, flush=True)


def result_json(document: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(document, ensure_ascii=False, indent=1))


def columns() -> int:
    """How many characters a line on stdout holds: the terminal's, or 200 where it is none."""
    from rich.console import Console

    return Console().width if sys.stdout.isatty() else 200


def show(what: RenderableType) -> None:
    """A table on stdout, as wide as it needs to be where stdout is no terminal."""
    from rich.console import Console

    Console(width=columns(), highlight=False).print(what)


@contextlib.contextmanager
def working(text: str) -> Iterator[None]:
    """Say `text` while the body runs: with a spinner on a terminal, else as a line."""
    if not sys.stderr.isatty():
        note(text)
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(text):
        yield


def progress(items: Iterable[T], total: int, text: str, *, quiet: bool = False) -> Iterator[T]:
    """`items`, with a bar of how many of `total` are done, the rate and the time left, on a terminal."""
    if quiet or not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    rate = TextColumn("{task.fields[rate]}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(text, total=total, rate="")
        clock = Stopwatch()
        for done, item in enumerate(items, 1):
            bar.update(task, completed=done, rate=f"{done / clock.seconds:.0f} img/s")
            yield item


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return time.perf_counter() - self._start


def size_of(path: Path) -> str:
    """The file's size in MB, as `ls` would count it in millions."""
    return f"{path.stat().st_size / 1e6:.1f} MB"


def blocks(text: str | None) -> tuple[int, ...] | None:
    """`4,8` as numbers of blocks; raises UsageError."""
    if text is None:
        return None
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise UsageError(f"--stages is '{text}', expected the blocks at which selecting stages begin, such as 4,8")
    return tuple(map(int, parts))


def one_precision(**asked: bool) -> Precision | None:
    """The one precision that is asked for, or None; raises UsageError for several."""
    chosen = [name for name, wanted in asked.items() if wanted]
    if len(chosen) > 1:
        raise UsageError(f"{' and '.join(f'--{name}' for name in chosen)} exclude each other: choose one")
    return cast("Precision", chosen[0]) if chosen else None


def ratios(text: str | None) -> tuple[float, ...] | None:
    """`0.5` or `0.7,0.5` as numbers; raises UsageError."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(
            f"--keep-ratio is '{text}', expected a number such as 0.5, or one for each stage: 0.7,0.5"
        ) from error
