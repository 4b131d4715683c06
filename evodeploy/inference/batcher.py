"""Dynamic micro-batching: single items of many callers, run together."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from evodeploy.errors import EvodeployError, UsageError

T = TypeVar("T")
P = TypeVar("P")
R = TypeVar("R")


class Batcher(Generic[T, P, R]):
    """Prepares what is submitted, each in a thread of a pool, and runs it in batches of up to `largest`.

    An item waits for others no longer than `patience` seconds. Only items of which `alike` says the same run together:
    the first waiting one decides, the others keep their turn. Threads may submit at the same time. What preparing an
    item raises it alone gets, and so an error among the results; what a run raises each of its items gets.
    """

    def __init__(
        self,
        prepare: Callable[[T], P],
        compute: Callable[[list[P]], Sequence[R | EvodeployError]],
        *,
        preparers: int,
        largest: int,
        patience: float,
        alike: Callable[[P], Hashable] = lambda item: None,
    ) -> None:
        self._alike = alike
        self._aside: deque[tuple[P, Future[R]]] = deque()  # taken from the queue, of another kind; the thread's own
        self._prepare, self._compute, self._largest, self._patience = prepare, compute, largest, patience
        self._pool = ThreadPoolExecutor(preparers, "evodeploy-prepare")
        self._waiting: queue.SimpleQueue[tuple[P, Future[R]] | None] = queue.SimpleQueue()  # None is the end
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="evodeploy-batcher", daemon=True)
        self._thread.start()

    def submit(self, item: T) -> Future[R]:
        """The future result of `item`, which can be cancelled until its batch is run.

        Raises UsageError after `close`.
        """
        future: Future[R] = Future()
        with self._lock:
            if self._closed:
                raise UsageError("nothing can be submitted any more: it was closed")
            self._pool.submit(self._admit, item, future)
        return future

    def close(self) -> None:
        """Finish what was submitted, then end."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._pool.shutdown()
        self._waiting.put(None)
        self._thread.join()

    def _admit(self, item: T, future: Future[R]) -> None:
        if future.cancelled():
            return
        try:
            self._waiting.put((self._prepare(item), future))
        except Exception as error:
            if future.set_running_or_notify_cancel():
                future.set_exception(_light(error))

    def _serve(self) -> None:
        ended = False
        while not ended:
            batch, ended = self._gathered()
            if batch:
                self._run(batch)

    def _gathered(self) -> tuple[list[tuple[P, Future[R]]], bool]:
        """The next batch, and whether it is the last."""
        waited = bool(self._aside)  # since before the last run: no more patience with them
        first = self._aside.popleft() if waited else self._waiting.get()
        if first is None:
            return [], True
        kind = self._alike(first[0])
        batch = [first]
        others: deque[tuple[P, Future[R]]] = deque()
        while self._aside:
            entry = self._aside.popleft()
            (batch if self._alike(entry[0]) == kind and len(batch) < self._largest else others).append(entry)
        self._aside = others
        deadline = time.monotonic() + (0 if waited else self._patience)
        while len(batch) < self._largest:
            try:
                found = self._waiting.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            if found is None:
                self._waiting.put(None)  # the end, once nothing is aside
                return batch, not self._aside
            (batch if self._alike(found[0]) == kind else self._aside).append(found)
        return batch, False

    def _run(self, gathered: list[tuple[P, Future[R]]]) -> None:
        batch = [(item, future) for item, future in gathered if future.set_running_or_notify_cancel()]
        if not batch:
            return
        try:
            results = self._compute([item for item, _ in batch])
        except Exception as error:
            for _, future in batch:
                future.set_exception(_light(error))
        else:
            for (_, future), result in zip(batch, results, strict=True):
                if isinstance(result, EvodeployError):
                    future.set_exception(result)
                else:
                    future.set_result(result)


def _light(error: Exception) -> Exception:
    """`error` without its frames where it is ours and says all: they hold images, and in a circle itself."""
    return error.with_traceback(None) if isinstance(error, EvodeployError) else error
