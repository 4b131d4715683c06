"""All errors that evodeploy raises.

    EvodeployError              exit code
    ├── VerificationError       1   two artefacts that should agree do not, or nothing meets a target
    ├── UsageError              2   the request cannot be honoured as asked
    │   └── InputError          2   images that do not fit the engine (also a ValueError)
    ├── UnavailableError        3   something this needs is not on this machine
    │   ├── MissingExtraError   3   a Python package; names the `pip install` line
    │   └── RuntimeFailedError      3   a runtime or a GPU that refused to work
    │       └── OutOfMemoryError    3   a device without room for what was asked
    └── BadFileError            4   a file that is not what it should be

Messages have one or two sentences: what happened, what was given, what was expected, how to fix it. Failures of
third-party libraries are translated where the library is called, and chained as the cause.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from typing import ClassVar

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # the same path may work the next time


class EvodeployError(Exception):
    """Base class of all errors; `exit_code` is the exit code of the command line."""

    exit_code: ClassVar[int] = 3


class VerificationError(EvodeployError):
    """Two artefacts that should agree do not, or nothing meets a target."""

    exit_code = 1


class UsageError(EvodeployError):
    """The request cannot be honoured as asked."""

    exit_code = 2


class InputError(UsageError, ValueError):
    """Images whose shape, type or number the engine does not accept."""


class UnavailableError(EvodeployError):
    """Something this needs is not on this machine."""


class MissingExtraError(UnavailableError):
    """A Python package is missing."""


class RuntimeFailedError(UnavailableError):
    """A runtime or a GPU refused to work."""


class OutOfMemoryError(RuntimeFailedError):
    """A device has no room for what was asked."""


class BadFileError(EvodeployError):
    """A file is not what it should be."""

    exit_code = 4


@contextlib.contextmanager
def needs(extra: str) -> Iterator[None]:
    """Raise MissingExtraError if an import in the body fails: its message names evodeploy's `extra` to install."""
    try:
        yield
    except ImportError as error:
        package = (error.name or "a package").split(".")[0]
        raise MissingExtraError(
            f'this needs {package}, which cannot be imported here ({error}): pip install "evodeploy[{extra}]"'
        ) from error


def unwritten(what: object, error: OSError) -> EvodeployError:
    """Return the exception for `error` while `what` is written: UnavailableError if the disk is full or fails.

    Otherwise it is a UsageError: another path may work.
    """
    kind = UnavailableError if error.errno in _DISK else UsageError
    return kind(f"cannot write {what}: {error.strerror or error}")
