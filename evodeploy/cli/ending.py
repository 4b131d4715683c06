"""How a command ends: with one sentence on stderr and an exit code, whatever happens.

0       success
1 to 4  the error's own code (evodeploy.errors); also 3 if the system refuses something or there is no memory left, and
        also 4 for an unforeseen fault, which is most often caused by the contents of a file
130     interrupted (SIGINT)
141     the reader of the output has closed it, which is not a failure and is not reported
143     terminated (SIGTERM)
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

import typer
from typer.core import TyperCommand

from evodeploy.cli import console
from evodeploy.errors import EvodeployError, UnavailableError, UsageError
from evodeploy.text import brief

ENVIRONMENT = 3
FAULT = 4
INTERRUPTED = 128 + signal.SIGINT
CLOSED = 128 + signal.SIGPIPE
MESSAGE = 4000  # characters of a sentence, at most: the name of a file may be long
_WORDS = {int(signal.SIGINT): "interrupted", int(signal.SIGTERM): "terminated"}
_PARSING: type[Exception] = typer.BadParameter.__mro__[1]  # Typer's usage error, which it does not export
_VERBOSE = "evodeploy.verbose"


class Command(TyperCommand):
    """A command that accepts --verbose and --quiet as the command line does, so that they may come after it too."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the command's own parameters, --verbose, --quiet and --help."""
        *own, last = super().get_params(ctx)
        return [*own, *(each for each in ctx.find_root().command.params if each.name in ("verbose", "quiet")), last]


class Export(Command):
    """A command whose --elastic may come without a value, which is then empty: Typer has no such options."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse `args`, after giving a bare --elastic an empty value."""
        following = [*args[1:], "-"]
        bare = [each == "--elastic" and after.startswith("-") for each, after in zip(args, following, strict=True)]
        filled = ["--elastic=" if alone else each for each, alone in zip(args, bare, strict=True)]
        return list(super().parse_args(ctx, filled))


def remember_verbose(context: typer.Context, asked: bool) -> None:
    """Show the whole log, as the callback of --verbose."""
    if asked:
        context.meta[_VERBOSE] = True
        console.set_level(logging.DEBUG)


def be_quiet(asked: bool) -> None:
    """Show only warnings in the log, as the callback of --quiet."""
    if asked:
        console.set_level(logging.WARNING)


def is_verbose(context: typer.Context) -> bool:
    """Return whether --verbose was given, before or after the command."""
    return bool(context.meta.get(_VERBOSE))


def run(app: typer.Typer, arguments: Sequence[str]) -> int:
    """Run the command line `app` on `arguments`, report what went wrong, and return the exit code."""
    _let_anything_be_written()
    console.start()
    context: Any = None
    with _signals() as received, console.logged():
        try:
            _refuse_empty(arguments)
            command = _command(app)
            context = command.make_context("evodeploy", list(arguments) or ["--help"])
            with context:
                command.invoke(context)
            sys.stdout.flush()
            code, message = 0, ""
        except BaseException as error:  # the last resort: no exception may pass
            code, message = _ending(error)
            if context is not None and is_verbose(context) and not isinstance(error, (typer.Exit, SystemExit)):
                with contextlib.suppress(OSError):
                    console.write("".join(traceback.format_exception(error)).rstrip())
    if received:  # whatever the signal was turned into on its way, even if that was caught
        code, message = 128 + received[0], _WORDS[received[0]]
    _say(code, message, as_json="--json" in _options(arguments))
    return code


_command = functools.cache(typer.main.get_command)  # reading all signatures takes longer than a command line


def _ending(error: BaseException) -> tuple[int, str]:
    """Return the exit code and the sentence for `error`; the sentence is empty if nothing more is to be reported."""
    if isinstance(error, typer.Exit):
        return error.exit_code, ""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else FAULT if error.code else 0, ""
    if isinstance(error, EvodeployError):
        return error.exit_code, str(error)
    if isinstance(error, _PARSING):
        return UsageError.exit_code, _parsing(error)
    if isinstance(error, (KeyboardInterrupt, typer.Abort)):
        return INTERRUPTED, _WORDS[signal.SIGINT]
    if isinstance(error, BrokenPipeError):
        return CLOSED, ""
    if isinstance(error, MemoryError):
        why = f" ({brief(str(error))})" if str(error) else ""
        return ENVIRONMENT, f"there is not enough memory for this{why}: use smaller batches, fewer or smaller images"
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename is not None else "the operating system reported an error: "
        return ENVIRONMENT, f"{where}{error.strerror or error}"
    what = brief(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
    return FAULT, f"evodeploy failed unexpectedly ({what}): -v shows where; please report it"


def _parsing(error: Any) -> str:
    """Return Typer's message about a command line that it cannot parse, with the command that shows its help."""
    message = brief(error.format_message()).rstrip(".")
    return message if error.ctx is None else f"{message} (see {error.ctx.command_path} --help)"


def _say(code: int, message: str, as_json: bool) -> None:
    """Write the sentence to stderr and, with `as_json`, the document to stdout; then nothing is left in any buffer.

    Each is written even if the other cannot be.
    """
    message = brief(message, MESSAGE)
    with _written_out("stdout"):
        if as_json and code not in (0, CLOSED):
            console.error_json(code, message or _WORDS.get(code - 128, "the command failed"))
        sys.stdout.flush()
    with _written_out("stderr"):
        if message:
            console.write(f"Error: {message}")
        sys.stderr.flush()


@contextlib.contextmanager
def _written_out(name: str) -> Iterator[None]:
    """Drop the rest if nobody reads it or the disk is full: otherwise Python would try again at its end, and fail."""
    try:
        yield
    except (OSError, UnavailableError):
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), getattr(sys, name).fileno())


def _options(arguments: Sequence[str]) -> Sequence[str]:
    """Return the arguments before `--`."""
    return arguments[: arguments.index("--")] if "--" in arguments else arguments


def _refuse_empty(arguments: Sequence[str]) -> None:
    """Raise UsageError for an empty argument: an empty path would be the working folder."""
    for before, argument in zip(("", *arguments), arguments, strict=False):
        name, equals, value = argument.partition("=")
        if argument == "" or (name.startswith("--") and equals and not value):
            what = name if equals else before if before.startswith("-") else "an argument"
            raise UsageError(f"{brief(what)} is empty: give it a value, or leave it out")


def _let_anything_be_written() -> None:
    """Make stdout and stderr escape characters that their encoding lacks, and replace them if they were closed."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115 - open until the process ends
        getattr(sys, name).reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Raise at SIGINT and SIGTERM in the body, so that it can clean up. Yield a list of the signals received."""
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    here = threading.current_thread() is threading.main_thread()  # no other thread can set handlers or gets signals
    before = {number: signal.signal(number, stop) for number in _WORDS} if here else {}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
