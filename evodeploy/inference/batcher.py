"""Dynamic micro-batching: single items of many callers run together."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from evodeploy.errors import EvodeployError, UsageError

T = TypeVar("T")
P = TypeVar("P")
R = TypeVar("R")
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, eq=False)
class _Entry(Generic[P, R]):
    """A prepared item, its future result, and the time until which it waits for others."""

    item: P
    future: Future[R]
    due: float


class Batcher(Generic[T, P, R]):
    """Prepares submitted items in the threads of a pool, and runs them in batches of up to `largest`.

    `weigh` gives the share of an item in a batch, by default 1. An item that weighs more than `largest` runs alone.
    After it is prepared, an item waits at most `patience` seconds for others, including the time of the run before.
    Both can be changed at any time. Threads may submit at the same time. An error in preparation or among the results
    fails only that item. An error of a run fails all its items.
    """

    def __init__(
        self,
        prepare: Callable[[T], P],
        compute: Callable[[list[P]], Sequence[R | EvodeployError]],
        *,
        preparers: int,
        largest: int,
        patience: float,
        weigh: Callable[[P], int] = lambda _: 1,
    ) -> None:
        self._prepare, self._compute, self._weigh = prepare, compute, weigh
        self.largest, self.patience = largest, patience
        self._pool = ThreadPoolExecutor(preparers, "evodeploy-prepare")
        self._waiting: queue.SimpleQueue[_Entry[P, R] | None] = queue.SimpleQueue()  # None marks the end
        self._next: _Entry[P, R] | None = None  # the item that did not fit into the last batch
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="evodeploy-batcher", daemon=True)
        self._thread.start()

    def submit(self, item: T) -> Future[R]:
        """Return the future result of `item`, which can be cancelled until its batch runs.

        Raises UsageError after `close`.
        """
        future: Future[R] = Future()
        with self._lock:
            if self._closed:
                raise UsageError("nothing can be submitted any more: it was closed")
            self._pool.submit(self._admit, item, future)
        return future

    def close(self) -> None:
        """Finish the submitted items, then stop."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._pool.shutdown()
        self._waiting.put(None)
        self._thread.join()

    def _admit(self, item: T, future: Future[R]) -> None:
        if _is_cancelled(future):
            return
        try:
            self._waiting.put(_Entry(self._prepare(item), future, time.monotonic() + self.patience))
        except Exception as error:
            if future.set_running_or_notify_cancel():
                future.set_exception(_light(error))

    def _serve(self) -> None:
        ended = False
        while not ended:
            batch, ended = self._gathered()
            if batch:
                self._run(batch)

    def _gathered(self) -> tuple[list[_Entry[P, R]], bool]:
        """Return the next batch, and whether it is the last."""
        first, self._next = self._next or self._waiting.get(), None
        while first is not None and _is_cancelled(first.future):
            first = self._waiting.get()
        if first is None:
            return [], True
        batch, weight = [first], self._weigh(first.item)
        while weight < self.largest:
            try:
                entry = self._waiting.get(timeout=max(0.0, first.due - time.monotonic()))
            except queue.Empty:
                break
            if entry is None:
                return batch, True
            if _is_cancelled(entry.future):
                continue
            weight += self._weigh(entry.item)
            if weight > self.largest:
                self._next = entry
                break
            batch.append(entry)
        return batch, False

    def _run(self, gathered: list[_Entry[P, R]]) -> None:
        batch = [entry for entry in gathered if entry.future.set_running_or_notify_cancel()]
        if not batch:
            return
        try:
            results = self._compute([entry.item for entry in batch])
        except Exception as error:
            for entry in batch:
                entry.future.set_exception(_light(error))
        else:
            for entry, result in zip(batch, results, strict=True):
                if isinstance(result, EvodeployError):
                    entry.future.set_exception(result)
                else:
                    entry.future.set_result(result)


def run_alike(
    items: Sequence[P], kind: Callable[[P], K], run: Callable[[list[P], K], Sequence[R | EvodeployError]]
) -> list[R | EvodeployError]:
    """Return the results of `items` in their order. Items of the same `kind` run together.

    If a run raises an EvodeployError, it is the result of each item of that run only.
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


def _is_cancelled(future: Future[R]) -> bool:
    """Return whether `future` was cancelled, and if so notify `concurrent.futures.wait`: call it until then only."""
    return future.cancelled() and not future.set_running_or_notify_cancel()


def _light(error: Exception) -> Exception:
    """Return an EvodeployError without its traceback, whose frames hold images and form a cycle; other errors as is."""
    return error.with_traceback(None) if isinstance(error, EvodeployError) else error
