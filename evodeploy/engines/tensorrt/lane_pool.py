"""A pool of lanes for several callers at a time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from evodeploy.engines.tensorrt.lane import Lane
from evodeploy.errors import UsageError


class LanePool:
    """Lanes for callers in several threads. They are made on demand up to `limit`; then callers wait.

    A lane is free, working for a call in progress, or parked by a caller that will come back for it.
    """

    def __init__(self, make: Callable[[], Lane], limit: int) -> None:
        self._make, self._limit = make, limit
        self._free: list[Lane] = []
        self._parked: set[Lane] = set()
        self._working = 0
        self._made = 0
        self._closed = False
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def working(self, parked: Lane | None = None, *, park: bool = False) -> Iterator[Lane]:
        """Yield a lane for the calls inside: the `parked` one, or any. Afterwards it is free, or parked with `park`.

        After a failure the lane is closed, because work may be in progress in it. Raises UsageError once the pool is
        closed.
        """
        lane = self._resume(parked) if parked else self._take()
        try:
            yield lane
        except BaseException:
            try:
                lane.close()
            finally:
                self._gone()
            raise
        with self._change():
            if park:
                self._parked.add(lane)
            else:
                self._free.append(lane)
            self._working -= 1

    def close(self) -> None:
        """Wait for the calls in progress, then close all lanes, including parked ones."""
        with self._change():
            self._closed = True
        with self._changed:
            self._changed.wait_for(lambda: not self._working)
            lanes = [*self._free, *self._parked]
            self._free.clear()
            self._parked.clear()
        with contextlib.ExitStack() as stack:  # closes all lanes, even if one fails
            for lane in lanes:
                stack.callback(lane.close)

    def _take(self) -> Lane:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._free or self._made < self._limit)
            self._check_open()
            self._working += 1
            if self._free:
                return self._free.pop()
            self._made += 1
        try:
            return self._make()
        except BaseException:
            self._gone()
            raise

    def _gone(self) -> None:
        """Decrease the count of lanes after a working one was lost."""
        with self._change():
            self._made -= 1
            self._working -= 1

    def _resume(self, lane: Lane) -> Lane:
        with self._changed:
            self._check_open()
            self._parked.remove(lane)
            self._working += 1
        return lane

    @contextlib.contextmanager
    def _change(self) -> Iterator[None]:
        with self._changed:
            yield
            self._changed.notify_all()

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError("the engine was closed meanwhile: open it again")
