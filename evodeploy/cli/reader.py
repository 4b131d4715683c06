"""The reader of a command's results, `head` for one: once it has gone, nothing more is computed for it."""

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
    """End the body with BrokenPipeError as soon as nobody reads stdout any more, where that is a pipe."""
    pipe = _pipe()
    if pipe is None or threading.current_thread() is not threading.main_thread():  # only that one gets signals
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
    """Return the descriptor of stdout where that is a pipe."""
    try:
        descriptor = sys.stdout.fileno()
        return descriptor if stat.S_ISFIFO(os.fstat(descriptor).st_mode) else None
    except (OSError, ValueError):  # a stream of Python's without one
        return None


def _watch(pipe: int, ended: int) -> None:
    """Wait for the end of the reader or of the body: their other ends are closed."""
    poll = select.poll()
    for descriptor in (pipe, ended):
        poll.register(descriptor, 0)
    found = dict(poll.poll())
    main = threading.main_thread().ident
    if ended not in found and main is not None:
        signal.pthread_kill(main, signal.SIGPIPE)
