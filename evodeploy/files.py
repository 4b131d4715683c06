"""Atomic file writes: outputs are checked before any work, locked while they are written, and replaced at the end."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from evodeploy.errors import BadFileError, UsageError, unwritten
from evodeploy.kinds import Kind, suffix_of
from evodeploy.locks import draft_of, owned
from evodeploy.text import brief

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def claimed(outputs: Iterable[tuple[Path, Kind]], force: bool, *sources: Path) -> Iterator[None]:
    """Check all outputs of a request against each other and against its inputs, then lock them until the end."""
    outputs = tuple(outputs)
    check_distinct(*(path for path, _ in outputs))
    with contextlib.ExitStack() as held:
        for path, kind in outputs:
            check_output(path, force, *sources, kind=kind)
            held.enter_context(owned(path))
            check_output(path, force, *sources, kind=kind)  # another run may have finished it in between
        yield


def check_distinct(*outputs: Path) -> None:
    """Raise UsageError if two outputs have the same name."""
    seen: set[str] = set()
    for path in outputs:
        place = os.path.join(os.path.realpath(path.parent), path.name)  # noqa: PTH118
        if place in seen:
            raise UsageError(f"two outputs would be written to {path}: choose different names")
        seen.add(place)


def check_output(path: Path, force: bool, *sources: Path, kind: Kind) -> None:
    """Check, before any work is done, that an output can be written. Raises UsageError if not.

    An output that is an input in `sources` is refused. With `force`, only an earlier file of `kind` is replaced.
    """
    try:
        for source in sources if path.exists() else ():
            if source.exists() and path.samefile(source):
                raise UsageError(f"the output {path} is the input itself: choose another name with -o")
        _check_replaceable(path)
        kind.check_suffix(path)
        if path.exists() and not force:
            raise UsageError(f"{path} already exists: pass --force to replace it, or -o to write elsewhere")
        if path.exists() and not kind.is_kind_of(path):
            raise UsageError(
                f"{path} is not {kind.name} of evodeploy, and --force replaces nothing else: remove it yourself, or "
                "choose another name with -o"
            )
        if not path.parent.is_dir():
            raise UsageError(f"the folder {path.parent} does not exist: create it, or choose another with -o")
        if not os.access(path.parent, os.W_OK):
            raise UsageError(f"the folder {path.parent} is not writable: choose another with -o")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from error


def _check_replaceable(path: Path) -> None:
    """Raise UsageError if `path` is not a regular file. Links are refused too: what they point to is not known."""
    if path.is_symlink():
        raise UsageError(f"{path} is a symbolic link: name the file it leads to, or another, with -o")
    if path.is_dir():
        raise UsageError(f"{path} is a folder: name a file with -o")
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is a device, a pipe or a socket: name a file with -o")


@contextlib.contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """Make `folder` if it is missing, and remove it at the end if new and empty. Raises UsageError if that fails."""
    missing = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder {folder}: {error.strerror or error}") from error
    try:
        yield
    finally:
        if missing:
            with contextlib.suppress(OSError):
                folder.rmdir()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a draft in the folder of `path`. On success the draft becomes `path`, on any failure it is removed.

    Raises UsageError if `path` cannot be written, is not a regular file, or another run is writing it, UnavailableError
    if the disk is full or fails.
    """
    draft = draft_of(path)
    try:
        _check_replaceable(path)
        with owned(path):
            draft.unlink(missing_ok=True)  # left by a run that was killed
            try:
                draft.touch(exist_ok=False)
                yield draft
                draft.replace(path)
            finally:
                draft.unlink(missing_ok=True)
    except OSError as error:
        raise unwritten(path, error) from error


def save_as(
    path: str | os.PathLike[str], what: str, forms: Mapping[Kind, Callable[[], str]], force: bool, *sources: Path
) -> None:
    """Write `what` to `path` in the format of its suffix. Bytes of a path that are not UTF-8 become escapes.

    Raises UsageError for any other suffix, or if the file exists: `force` replaces it if it has that format.
    """
    path = Path(path)
    for kind, text in forms.items():
        if suffix_of(path) in kind.suffixes:
            with claimed([(path, kind)], force, *sources), replacing(path) as draft:
                draft.write_text(text(), encoding="utf-8", errors="backslashreplace")
            return
    expected = ", ".join(suffix for kind in forms for suffix in kind.suffixes)
    raise UsageError(f"{what} cannot be written to {path}: expected a name that ends with {expected}")


def sha256(*paths: Path) -> str:
    """Return the SHA-256 of a file, or of the contents of several in sequence, as hexadecimal text."""
    digest = hashlib.sha256()
    for path in paths:
        with open_regular(path, "a file") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def open_regular(path: Path | str, what: str, limit: int | None = None) -> BinaryIO:
    """Open the regular file `path` to read `what` from it, without waiting. Folders, pipes and devices are refused.

    Raises UsageError if there is no such file or it cannot be read, BadFileError if it has more than `limit` bytes.
    """
    shown = brief(os.fspath(path))
    if not shown:
        raise UsageError(f"the name of a file is empty (expected {what})")
    try:
        _check_kind(Path(path).stat(), shown, what)  # checked before opening: opening a device can already have effects
        file = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")  # noqa: PTH123, SIM115
    except FileNotFoundError as error:
        raise UsageError(f"{shown} does not exist (expected {what})") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name, or a name that this locale cannot encode
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


def entries_below(folder: Path) -> Iterator[str]:
    """Yield the path of every file and folder below `folder`. Raises UsageError if a folder cannot be read.

    Links to folders are not followed; a warning names one of them.
    """
    links: list[str] = []
    for parent, folders, files in os.walk(folder, onerror=_unreadable):
        start = inside(parent)
        links += (start + name for name in folders if os.path.islink(start + name))  # noqa: PTH114
        yield from (start + name for name in (*folders, *files))
    if links:
        _log.warning(
            f"{len(links)} links to folders are not followed, such as {brief(min(links))}: name what they lead to"
        )


def inside(folder: str | os.PathLike[str]) -> str:
    """Return the prefix of all paths inside `folder`, as `Path` would write it."""
    return "" if Path(folder) == Path() else os.path.join(Path(folder), "")  # noqa: PTH118 - also of /


def check_folder(folder: str | os.PathLike[str]) -> None:
    """Raise UsageError if `folder` cannot be listed."""
    try:
        os.scandir(folder).close()
    except OSError as error:
        _unreadable(error)


def _unreadable(error: OSError) -> None:
    shown = brief(os.fspath(error.filename))
    raise UsageError(f"cannot read the folder {shown}: {error.strerror or error}") from error


def check_input(path: Path, what: str) -> None:
    """Raise UsageError if `path` is missing, not a regular file or unreadable, BadFileError if it is empty."""
    with open_regular(path, what) as file:
        if not file.read(1):
            raise BadFileError(f"{brief(str(path))} is empty (expected {what})")
