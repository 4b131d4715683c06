"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from evodeploy.errors import BadFileError, UsageError


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
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def check_input(path: Path, what: str) -> None:
    """Refuse an input that is missing, a folder, empty or unreadable."""
    if not path.exists():
        raise UsageError(f"{path} does not exist (expected {what})")
    if path.is_dir():
        raise UsageError(f"{path} is a folder (expected {what})")
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise BadFileError(f"{path} is empty (expected {what})")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
