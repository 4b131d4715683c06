"""What all commands share: common options, and the output. Results go to stdout, the log to stderr."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from evodeploy.errors import UnavailableError
from evodeploy.text import json_text, printable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    from evodeploy.kinds import Kind

_log = logging.getLogger(__name__)

_NOT_ASCII = re.compile("[^\\x00-\\x7e]")


@dataclass
class _State:
    """Whether the command has printed its JSON document."""

    answered: bool = False


_state = _State()

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout; all else goes to stderr.")]
Force = Annotated[bool, typer.Option("--force", "-f", help="Replace the output where it exists.")]


class _Handler(logging.Handler):
    """Shows the package's log on stderr, as lines without times."""

    def __init__(self) -> None:
        super().__init__()
        self._warnings: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message. Errors of writing are passed on."""
        label = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        text = label + record.getMessage()
        if record.levelno == logging.WARNING:
            if text in self._warnings:  # some commands read the same file several times
                return
            self._warnings.add(text)
        write(text)


def write(text: str) -> None:
    """Write a line to stderr in one piece, so that no signal comes between the text and its end."""
    sys.stderr.write(printable(text) + "\n")
    sys.stderr.flush()


def note(text: str) -> None:
    """Log a line of progress."""
    _log.info("%s", text)


@contextlib.contextmanager
def logged() -> Iterator[None]:
    """Show the package's log while the body runs: from INFO on, unless `set_level` changes that.

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
    """Show the log from `level` on, which is one of `logging`'s."""
    logging.getLogger("evodeploy").setLevel(level)


def shows_progress() -> bool:
    """Return whether stderr shows bars and spinners: it is a terminal, and the command is not quiet."""
    return sys.stderr.isatty() and _log.isEnabledFor(logging.INFO)


def result(text: str) -> None:
    """Print a line of the result on stdout."""
    _out(printable(text))


def result_json(document: Any) -> None:
    """Print the command's only JSON document on stdout, in ASCII, which is valid UTF-8 on any terminal."""
    text = json_text(document)
    _state.answered = True
    _out(_NOT_ASCII.sub(lambda found: json.dumps(found[0])[1:-1], text))


class Record(Protocol):
    """The result of a public function. Its text is the short form."""

    def to_dict(self) -> Any:
        """Return plain values for JSON."""


class Saved(Protocol):
    """A record that can be written to files."""

    def save(self, path: Path, *, force: bool = False) -> None:
        """Write it to `path` in the format of its suffix."""


def answer(record: Record, as_json: bool, *following: str) -> None:
    """Print a `record` as a JSON document, or else as text with the lines `following` it."""
    if as_json:
        result_json(record.to_dict())
    else:
        result("\n".join([str(record), *following]))


def saved(record: Saved, outputs: Iterable[tuple[Path, Kind]], force: bool, shown: Callable[[], None]) -> None:
    """Write `record` to all `outputs` and print it with `shown`, even if one of them fails, as on a full disk."""

    def write(path: Path) -> None:
        record.save(path, force=force)
        note(f"wrote {path}")

    with contextlib.ExitStack() as last_first:
        last_first.callback(shown)
        for path, _ in reversed([*outputs]):
            last_first.callback(write, path)


def error_json(code: int, message: str) -> None:
    """Print the error as the JSON document on stdout, unless one was already printed."""
    if not _state.answered:
        result_json({"error": {"code": code, "message": message}})


def start() -> None:
    """Begin a command: nothing has been printed on stdout."""
    _state.answered = False


def _out(text: str, end: str = "\n") -> None:
    try:
        print(text, end=end, flush=True)
    except BrokenPipeError:  # the reader has stopped reading
        raise
    except OSError as error:
        raise UnavailableError(f"cannot write to stdout: {error.strerror or error}") from error


def columns() -> int:
    """Return the number of characters in a line on stdout: the terminal's, or 200 if it is not a terminal."""
    from rich.console import Console

    return Console().width if sys.stdout.isatty() else 200


def show(what: RenderableType) -> None:
    """Print a table on stdout, as wide as it needs to be if stdout is not a terminal."""
    from rich.console import Console

    console = Console(width=columns(), highlight=False, markup=False, emoji=False)
    with console.capture() as captured:
        console.print(_Printable(what), crop=False)
    _out(captured.get(), end="")


@contextlib.contextmanager
def working(text: str) -> Iterator[None]:
    """Show `text` while the body runs: with a spinner on a terminal, otherwise as a line."""
    if not shows_progress():
        note(text)
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(text):
        yield


@contextlib.contextmanager
def progress(text: str, *, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Yield a function to call with the images done and their total: on a terminal it moves a bar with the rate."""
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
    """The Rich output of `what`, with its text made printable before the terminal's own codes are added."""

    def __init__(self, what: RenderableType) -> None:
        self._what = what

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in console.render(self._what, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))


class Stopwatch:
    """A clock that starts when it is made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start
