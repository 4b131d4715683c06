"""What all commands share: their common options, and where words go. Results go to stdout, the log to stderr."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from evodeploy.errors import UnavailableError
from evodeploy.text import json_text, printable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

_log = logging.getLogger(__name__)

_NOT_ASCII = re.compile("[^\\x00-\\x7e]")


@dataclass
class _State:
    """Whether the command has answered with its JSON document."""

    answered: bool = False


_state = _State()

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout; all else goes to stderr.")]
Force = Annotated[bool, typer.Option("--force", "-f", help="Replace the output where it exists.")]


class _Handler(logging.Handler):
    """Shows the package's log on stderr, as lines without times."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message, which may fail as writing does."""
        label = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        write(label + record.getMessage())


def write(text: str) -> None:
    """Write a line on stderr, in one piece: a signal does not come between the text and its end."""
    sys.stderr.write(printable(text) + "\n")
    sys.stderr.flush()


def note(text: str) -> None:
    """Log a line of progress."""
    _log.info("%s", text)


@contextlib.contextmanager
def logged() -> Iterator[None]:
    """Show the package's log while the body runs: from INFO on, unless `set_level` says otherwise.

    It reaches no handler of the root logger, which would show it a second time.
    """
    package, handler = logging.getLogger("evodeploy"), _Handler()
    before, propagated = package.level, package.propagate
    package.addHandler(handler)
    package.setLevel(logging.INFO)
    package.propagate = False
    try:
        yield
    finally:
        package.removeHandler(handler)
        package.setLevel(before)
        package.propagate = propagated


def set_level(level: int) -> None:
    """Show the log from `level` on, one of `logging`'s."""
    logging.getLogger("evodeploy").setLevel(level)


def shows_progress() -> bool:
    """Whether stderr shows bars and spinners: it is a terminal, and the command is not quiet."""
    return sys.stderr.isatty() and _log.isEnabledFor(logging.INFO)


def result(text: str) -> None:
    """A line of what was asked for: on stdout."""
    _out(printable(text))


def result_json(document: Any) -> None:
    """One JSON document on stdout, the only one of the command: in ASCII, which is UTF-8 that any terminal shows."""
    text = json_text(document)
    _state.answered = True
    _out(_NOT_ASCII.sub(lambda found: json.dumps(found[0])[1:-1], text))


class Record(Protocol):
    """What public functions return: its text says it in short."""

    def to_dict(self) -> Any:
        """Return plain values for JSON."""


def answer(record: Record, as_json: bool, *following: str) -> None:
    """Print a `record` as a JSON document, or else as text with the lines `following` it."""
    if as_json:
        result_json(record.to_dict())
    else:
        result("\n".join([str(record), *following]))


def error_json(code: int, message: str) -> None:
    """What went wrong as the JSON document on stdout, where none is there yet."""
    if not _state.answered:
        result_json({"error": {"code": code, "message": message}})


def start() -> None:
    """Begin a command: nothing is on stdout."""
    _state.answered = False


def _out(text: str, end: str = "\n") -> None:
    try:
        print(text, end=end, flush=True)
    except BrokenPipeError:  # the reader has seen enough
        raise
    except OSError as error:
        raise UnavailableError(f"cannot write to stdout: {error.strerror or error}") from error


def columns() -> int:
    """Return how many characters a line on stdout holds: the terminal's, or 200 where it is none."""
    from rich.console import Console

    return Console().width if sys.stdout.isatty() else 200


def show(what: RenderableType) -> None:
    """A table on stdout, as wide as it needs to be where stdout is no terminal."""
    from rich.console import Console

    console = Console(width=columns(), highlight=False, markup=False, emoji=False)
    with console.capture() as captured:
        console.print(_Printable(what), crop=False)
    _out(captured.get(), end="")


@contextlib.contextmanager
def working(text: str) -> Iterator[None]:
    """Say `text` while the body runs: with a spinner on a terminal, else as a line."""
    if not shows_progress():
        note(text)
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(text):
        yield


@contextlib.contextmanager
def progress(text: str, *, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """A function to call with how many of how many images are done: on a terminal it moves a bar with the rate."""
    if quiet or not shows_progress():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    rate = TextColumn("{task.fields[rate]}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task, clock = bar.add_task(text, total=None, rate=""), Stopwatch()
        yield lambda done, total: bar.update(
            task, completed=done, total=total, rate=f"{done / clock.seconds:.0f} img/s"
        )


class _Printable:
    """What Rich shows of `what`, its text made printable before the terminal's own codes are added."""

    def __init__(self, what: RenderableType) -> None:
        self._what = what

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in console.render(self._what, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return time.perf_counter() - self._start
