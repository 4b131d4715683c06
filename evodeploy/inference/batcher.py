"""Dynamic micro-batching: single items of many callers, run together."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from evodeploy.errors import EvodeployError, UsageError

T = TypeVar("T")
P = TypeVar("P")
R = TypeVar("R")
K = TypeVar("K", bound=Hashable)


class Batcher(Generic[T, P, R]):
    """Prepares what is submitted, each in a thread of a pool, and runs it in batches of up to `largest`.

    `largest` may be set at any time. An item waits for others no longer than `patience` seconds. Threads may submit at
    the same time. An error of preparation or among the results fails only that item; an error of a run fails all its
    items.
    """

    def __init__(
        self,
        prepare: Callable[[T], P],
        compute: Callable[[list[P]], Sequence[R | EvodeployError]],
        *,
        preparers: int,
        largest: int,
        patience: float,
    ) -> None:
        self._prepare, self._compute, self.largest, self._patience = prepare, compute, largest, patience
        self._pool = ThreadPoolExecutor(preparers, "evodeploy-prepare")
        self._waiting: queue.SimpleQueue[tuple[P, Future[R]] | None] = queue.SimpleQueue()  # None is the end
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="evodeploy-batcher", daemon=True)
        self._thread.start()

    def submit(self, item: T) -> Future[R]:
        """Return the future result of `item`, which can be cancelled until its batch is run.

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
        """Return the next batch, and whether it is the last."""
        first = self._waiting.get()
        if first is None:
            return [], True
        batch, deadline = [first], time.monotonic() + self._patience
        while len(batch) < self.largest:
            try:
                entry = self._waiting.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            if entry is None:
                return batch, True
            batch.append(entry)
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


def run_alike(
    items: Sequence[P], kind: Callable[[P], K], run: Callable[[list[P], K], Sequence[R | EvodeployError]]
) -> list[R | EvodeployError]:
    """Return the results of `items`, in their order; those of one `kind` are run together.

    An EvodeployError that a run raises is the result of each of its items, and of no others.
    """
    groups: dict[K, list[int]] = {}
    for number, item in enumerate(items):
        groups.setdefault(kind(item), []).append(number)
    results: dict[int, R | EvodeployError] = {}
    for each, numbers in groups.items():
        try:
            found = run([items[number] for number in numbers], each)
        except EvodeployError as error:
            found = [error.with_traceback(None)] * len(numbers)
        results.update(zip(numbers, found, strict=True))
    return [results[number] for number in range(len(items))]


def _light(error: Exception) -> Exception:
    """`error` without its frames where it is ours and says all: they hold images, and in a circle itself."""
    return error.with_traceback(None) if isinstance(error, EvodeployError) else error
