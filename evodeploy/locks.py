"""Outputs that one run owns: locks that end with their process, drafts, and temporary folders.

While an output NAME is written, `.NAME.evodeploy-draft` and `.NAME.evodeploy-lock` lie next to it. A killed run leaves
both behind, but nobody holds its lock any more: the next run that writes NAME takes the lock and removes the draft.
If a file system offers no locks, outputs are written without them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path

from evodeploy.errors import UsageError, unwritten

DRAFT, LOCK = "evodeploy-draft", "evodeploy-lock"
LONGEST = 200  # bytes of an output's name that still fit into the name of its draft
SCRATCH = "evodeploy-scratch-"
_NOT_OFFERED = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF)  # some network file systems

_OWNED: ContextVar[frozenset[Path]] = ContextVar("owned outputs of this thread", default=frozenset())


def draft_of(path: Path) -> Path:
    """Return the path at which the content of `path` is written until it is complete."""
    return _hidden(path, DRAFT)


@contextlib.contextmanager
def owned(path: Path) -> Iterator[None]:
    """Own the output `path` until the end of the body. A thread that owns it already may do so again.

    Raises UsageError if another run or thread owns it, or if its folder accepts no lock.
    """
    path = Path(os.path.realpath(path.parent), path.name)
    if path in _OWNED.get():
        yield
        return
    lock = _hidden(path, LOCK)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(lock))
        except BlockingIOError as error:
            raise UsageError(f"another run is writing {path}: wait until it ends, or choose another output") from error
        except OSError as error:
            where = f": its lock file {lock}" if os.path.lexists(lock) else ""
            raise unwritten(f"{path}{where}", error) from error
        before = _OWNED.set(_OWNED.get() | {path})
        stack.callback(_OWNED.reset, before)
        yield


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock file `path`, and remove it at the end. Raises BlockingIOError if another process holds it.

    With `wait`, waits for the other process instead. The kernel releases the lock when the process ends for any reason.
    """
    descriptor = _acquired(path, wait)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        flock(descriptor, fcntl.LOCK_UN)  # closing alone would leave the lock to a forked child
        os.close(descriptor)


def flock(descriptor: int, how: int) -> None:
    """Call flock, or do nothing if locks are not offered. Raises BlockingIOError if another process holds the lock."""
    try:
        fcntl.flock(descriptor, how)
    except OSError as error:
        if error.errno not in _NOT_OFFERED:
            raise


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Make a temporary folder for this run, after removing those that killed runs left."""
    for found in Path(tempfile.gettempdir()).glob(f"{SCRATCH}*"):
        if re.fullmatch(rf"{SCRATCH}[a-z0-9_]{{8}}", found.name):
            _clear(found)
    folder, descriptor = _new_scratch()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _hidden(path: Path, what: str) -> Path:
    name = path.name
    if len(os.fsencode(name)) > LONGEST:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:32]
    return path.with_name(f".{name}.{what}")


def _acquired(path: Path, wait: bool) -> int:
    """Return a descriptor of `path` with the lock held on it."""
    while True:
        descriptor = _opened(path)
        try:
            flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if _is_open(path, descriptor):  # not removed by the run that held it before
                return descriptor
        except BaseException as error:
            os.close(descriptor)
            if isinstance(error, OSError) and not isinstance(error, BlockingIOError):  # no other can hold it either
                with contextlib.suppress(OSError):
                    path.unlink()
            raise
        os.close(descriptor)


def _opened(path: Path) -> int:
    """Open the lock file `path`. A file that another user's killed run left may be open to readers only."""
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o666)
    except PermissionError:
        if not os.path.lexists(path):
            raise
        return os.open(path, os.O_RDONLY | flags)


def _is_open(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(follow_symlinks=False), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _new_scratch() -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=SCRATCH))
        try:
            descriptor = _locked_folder(folder, flock)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        if descriptor is not None:  # otherwise another run took the folder for an abandoned one and removed it
            return folder, descriptor


def _clear(folder: Path) -> None:
    """Remove a temporary folder of this user if no run holds it."""
    with contextlib.suppress(OSError):
        if folder.stat(follow_symlinks=False).st_uid != os.getuid():
            return
        descriptor = _locked_folder(folder, fcntl.flock)  # fcntl's: without locks, another run may be using the folder
        if descriptor is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(descriptor)


def _locked_folder(folder: Path, lock: Callable[[int, int], None]) -> int | None:
    """Return a descriptor of the folder after calling `lock` on it, or None if another run holds or has removed it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_open(folder, descriptor):
            return descriptor
    except BlockingIOError:
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None
