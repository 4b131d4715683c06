"""A stream of items: some threads prepare them and others compute them in batches, while their source is read."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from evodeploy.errors import EvodeployError

T = TypeVar("T")
P = TypeVar("P")
R = TypeVar("R")
F = TypeVar("F")

AHEAD = 2  # batches in flight behind the one whose results are being returned


def pipelined(
    items: Iterable[T],
    prepare: Callable[[T], P],
    compute: Callable[[list[P]], Sequence[R | EvodeployError]],
    failed: Callable[[T, EvodeployError], F],
    *,
    batch: int,
    preparers: int,
    computers: int = 1,
) -> Generator[R | F, None, None]:
    """Yield a result for each item, in order; `compute` receives up to `batch` prepared items at a time.

    If `prepare` raises an EvodeployError, or `compute` returns one for an item, `failed` makes the result of that item.
    An error that `compute` raises ends the stream.
    At most three batches are held at a time: `items` is read further as results are taken, in the thread that takes
    them. Closing the generator early waits for the batches that are being computed, and drops the rest.
    """
    source = iter(items)
    prepare_pool = ThreadPoolExecutor(preparers, "evodeploy-prepare")
    compute_pool = ThreadPoolExecutor(computers, "evodeploy-compute")

    def run(futures: list[Future[P]], chunk: list[T]) -> list[R | F]:
        prepared: list[P] = []
        errors: dict[int, EvodeployError] = {}
        for i, future in enumerate(futures):
            try:
                prepared.append(future.result())
            except EvodeployError as error:
                errors[i] = error.with_traceback(None)  # its frames hold the batch, in a cycle
        computed = iter(compute(prepared) if prepared else [])
        results = [errors[i] if i in errors else next(computed) for i in range(len(chunk))]
        return [
            failed(item, result) if isinstance(result, EvodeployError) else result
            for item, result in zip(chunk, results, strict=True)
        ]

    under_way: deque[Future[list[R | F]]] = deque()
    try:
        while True:
            while len(under_way) <= AHEAD and (chunk := list(itertools.islice(source, batch))):
                futures = [prepare_pool.submit(prepare, item) for item in chunk]
                under_way.append(compute_pool.submit(run, futures, chunk))
            if not under_way:
                return
            yield from under_way.popleft().result()
    finally:
        prepare_pool.shutdown(wait=False, cancel_futures=True)
        compute_pool.shutdown(cancel_futures=True)
        prepare_pool.shutdown()
