"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from evodeploy.errors import BadFileError, UsageError
from evodeploy.text import brief


def check_output(path: Path, force: bool, *sources: Path) -> None:
    """Refuse, before any work is done, an output that could not be written: raises UsageError."""
    for source in sources:
        if path.exists() and source.exists() and path.samefile(source):
            raise UsageError(f"the output {path} is the input itself: choose another name with -o")
    if path.is_dir():
        raise UsageError(f"{path} is a folder: name a file with -o")
    if path.exists() and not force:
        raise UsageError(f"{path} already exists: pass --force to replace it, or -o to write elsewhere")
    if not path.parent.is_dir():
        raise UsageError(f"the folder {path.parent} does not exist: create it, or choose another with -o")
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"the folder {path.parent} is not writable: choose another with -o")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it becomes `path`, on any failure it is removed."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield draft
        draft.replace(path)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        draft.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """The file's SHA-256 as hexadecimal text."""
    digest = hashlib.sha256()
    with open_regular(path, "a file") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def open_regular(path: Path | str, what: str, limit: int | None = None) -> BinaryIO:
    """Open the regular file `path` to read `what` from it: never a folder, a pipe or a device, and without waiting.

    Raises UsageError where there is no such file or it cannot be read, BadFileError for more than `limit` bytes.
    """
    shown = brief(os.fspath(path))
    if not shown:
        raise UsageError(f"the name of a file is empty (expected {what})")
    try:
        _check_kind(Path(path).stat(), shown, what)  # before it is opened: to open a device may already do something
        file = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")  # noqa: PTH123, SIM115
    except FileNotFoundError as error:
        raise UsageError(f"{shown} does not exist (expected {what})") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name, or a name that this locale cannot say
        raise UsageError(f"cannot read {shown}: {getattr(error, 'strerror', None) or error}") from error
    try:
        found = os.fstat(file.fileno())
        _check_kind(found, shown, what)
        if limit is not None and found.st_size > limit:
            raise BadFileError(f"{shown} has {found.st_size} bytes, expected at most {limit} ({what})")
    except BaseException:
        file.close()
        raise
    return file


def _check_kind(found: os.stat_result, shown: str, what: str) -> None:
    kinds = ((stat.S_ISDIR, "folder"), (stat.S_ISFIFO, "pipe"), (stat.S_ISSOCK, "socket"))
    if not stat.S_ISREG(found.st_mode):
        kind = next((name for test, name in kinds if test(found.st_mode)), "device")
        raise UsageError(f"{shown} is a {kind}, not a file (expected {what})")


def check_input(path: Path, what: str) -> None:
    """Refuse an input that is missing, no regular file, empty or unreadable."""
    with open_regular(path, what) as file:
        if not file.read(1):
            raise BadFileError(f"{brief(str(path))} is empty (expected {what})")


def suffix_of(path: str | os.PathLike[str]) -> str:
    """The suffix in lower case: it says what a file is, and some systems write it in capitals."""
    return Path(path).suffix.lower()
