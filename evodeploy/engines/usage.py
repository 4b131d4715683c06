"""A count of the work in progress, so that closing waits for it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from evodeploy.errors import UsageError


class Usage:
    """Counts the users of an object that is closed once. Threads may share it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._working = 0
        self._closed = self._released = False

    @contextlib.contextmanager
    def working(self, name: str) -> Iterator[None]:
        """Keep the object open for the work inside. After `close`, raises UsageError that calls it `name`."""
        with self._changed:
            if self._closed:
                raise UsageError(f"the {name} is closed: open it again")
            self._working += 1
        try:
            yield
        finally:
            with self._changed:
                self._working -= 1
                self._changed.notify_all()

    def close(self, release: Callable[[], None]) -> None:
        """Refuse new work, wait for the work in progress, then call `release`. Further calls do not release again."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not self._working)
            if not self._released:
                self._released = True
                release()
