"""A file in which builds share their measurements of kernels, so that the next build need not repeat them."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evodeploy.errors import UsageError
from evodeploy.files import check_output, replacing
from evodeploy.kinds import TIMINGS
from evodeploy.locks import locked

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def shared_timings(config: Any, path: Path | None) -> Iterator[None]:
    """Build with the timings in `path`, and add those that the build inside measured. Without a path do nothing.

    Builds may run at the same time: the file is locked while it is read or written, not while a build measures. Raises
    UsageError if it cannot be used, or belongs to another TensorRT or GPU.
    """
    if path is None:
        yield
        return
    path = Path(os.path.realpath(path))  # the target of a link is shared
    check_output(path, True, kind=TIMINGS)
    with _locked(path):
        known = path.read_bytes() if path.exists() else b""
    cache = config.create_timing_cache(known)
    if known and _content(cache) == _content(config.create_timing_cache(b"")) != known:
        raise UsageError(f"{path} holds no timings that TensorRT can read: name another file with --timing-cache")
    if not config.set_timing_cache(cache, ignore_mismatch=False):
        raise UsageError(f"{path} holds timings of another TensorRT or GPU: name another file with --timing-cache")
    yield
    ours = config.get_timing_cache()
    if len(_content(ours)) == len(known):
        _log.info(f"timing cache {path}: everything was measured before")
        return
    with _locked(path):
        merged = config.create_timing_cache(path.read_bytes() if path.exists() else b"")
        merged.combine(ours, ignore_mismatch=False)
        content = _content(merged)
        with replacing(path) as draft:
            draft.write_bytes(content)
    _log.info(f"timing cache {path}: {len(content) - len(known)} bytes of new timings")


def _content(cache: Any) -> bytes:
    return bytes(cache.serialize())


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Exclude other builds from `path`. The lock is on a file next to it, since `path` itself is replaced."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(locked(path.with_name(f".{path.name}.lock"), wait=True))
        except OSError as error:
            raise UsageError(f"cannot use the timing cache {path}: {error.strerror or error}") from error
        yield
