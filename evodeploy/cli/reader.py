"""The reader of a command's results, for example `head`: when it has gone, nothing more is computed for it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import stat
import sys
import threading
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def while_read() -> Iterator[None]:
    """End the body with BrokenPipeError as soon as nobody reads stdout any more, if it is a pipe."""
    pipe = _pipe()
    if pipe is None or threading.current_thread() is not threading.main_thread():  # only it gets signals
        yield
        return
    before = signal.signal(signal.SIGPIPE, _gone)
    ended, end = os.pipe()
    watcher = threading.Thread(target=_watch, args=(pipe, ended), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.signal(signal.SIGPIPE, before)
        os.close(end)
        watcher.join()
        os.close(ended)


def _gone(number: int, frame: FrameType | None) -> None:
    raise BrokenPipeError


def _pipe() -> int | None:
    """Return the descriptor of stdout if it is a pipe, or None."""
    try:
        descriptor = sys.stdout.fileno()
        return descriptor if stat.S_ISFIFO(os.fstat(descriptor).st_mode) else None
    except (OSError, ValueError):  # a Python stream without a descriptor
        return None


def _watch(pipe: int, ended: int) -> None:
    """Wait until the other end of either is closed: by the end of the reader, or by that of the body."""
    poll = select.poll()
    for descriptor in (pipe, ended):
        poll.register(descriptor, 0)
    found = dict(poll.poll())
    main = threading.main_thread().ident
    if ended not in found and main is not None:
        signal.pthread_kill(main, signal.SIGPIPE)
