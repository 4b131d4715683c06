"""A stream of items prepared by some threads and computed in batches by another, while their source is read."""

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

AHEAD = 2  # batches under way besides the one whose results are being given


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
    """A result for each item, in their order, `compute` seeing up to `batch` prepared items at a time.

    What `prepare` raises of our errors makes that item `failed`, and so does an error among the results of `compute`;
    what `compute` raises ends the stream. No more than
    three batches are held at a time: `items` is read on as results are taken, in the thread that takes them. Closing
    the generator early waits for what is being computed and drops the rest.
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
                errors[i] = error.with_traceback(None)  # whose frames hold the batch, in a circle
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
