"""Outputs that one run owns: locks that end with their process, drafts, and temporary folders.

While an output NAME is written, next to it are `.NAME.evodeploy-draft` and `.NAME.evodeploy-lock`. A killed run leaves
both: its lock is then held by nobody, so the next run that writes NAME takes the lock over and removes the draft.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

from evodeploy.errors import UsageError

DRAFT, LOCK = "evodeploy-draft", "evodeploy-lock"
LONGEST = 200  # bytes of an output's name that fit into its draft's
SCRATCH = "evodeploy-scratch-"

_OWNED: ContextVar[frozenset[Path]] = ContextVar("owned outputs of this thread", default=frozenset())


def draft_of(path: Path) -> Path:
    """Where the content of `path` is written before it is complete."""
    return _hidden(path, DRAFT)


@contextlib.contextmanager
def owned(path: Path) -> Iterator[None]:
    """Own the output `path` until the end; what owns it already in this thread may do so again.

    Raises UsageError while another run or thread owns it, and where its folder takes no lock.
    """
    path = Path(os.path.realpath(path.parent), path.name)
    if path in _OWNED.get():
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(_hidden(path, LOCK)))
        except BlockingIOError as error:
            raise UsageError(f"another run is writing {path}: let it end, or choose another output") from error
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror or error}") from error
        before = _OWNED.set(_OWNED.get() | {path})
        stack.callback(_OWNED.reset, before)
        yield


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock file `path`, which is removed at the end; raises BlockingIOError where another holds it.

    With `wait` waits for the other instead. The kernel ends the lock with the process, whatever ends that.
    """
    descriptor = _acquired(path, wait)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing alone would leave it to a forked child
        os.close(descriptor)


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A temporary folder of this run; those that killed runs left are removed first."""
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
    """A descriptor of `path` with the lock on it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if _is_open(path, descriptor):  # not removed by the run that held it before
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_open(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(follow_symlinks=False), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _new_scratch() -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=SCRATCH))
        descriptor = _locked_folder(folder)
        if descriptor is not None:  # else another run took it for one that was left, and removed it
            return folder, descriptor


def _clear(folder: Path) -> None:
    """Remove a temporary folder of this user's that no run holds."""
    with contextlib.suppress(OSError):
        if folder.stat(follow_symlinks=False).st_uid != os.getuid():
            return
        descriptor = _locked_folder(folder)
        if descriptor is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(descriptor)


def _locked_folder(folder: Path) -> int | None:
    """A descriptor of the folder with the lock on it, or None where another run holds or has removed it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_open(folder, descriptor):
            return descriptor
    except BlockingIOError:
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None
