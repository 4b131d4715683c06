"""When requests are sent: at times drawn before, whatever becomes of those before them."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from evodeploy.load_testing.records import Outcome, Reply

Asking = Callable[[], Reply]  # one request


def poisson(rate: float, seconds: float, seed: int) -> list[float]:
    """Times from 0 to `seconds` of requests that come independently of each other, `rate` a second on average."""
    generator = np.random.default_rng(seed)
    count = int(generator.poisson(rate * seconds))
    return sorted(generator.uniform(0, seconds, count).tolist())


def open_loop(make: Callable[[], Asking], times: Sequence[float], most: int) -> list[Outcome]:
    """Ask at each of `times`, in seconds from now, in up to `most` threads with a connection of their own.

    A request for which no thread is free waits for one, and its seconds count from its time on: a server that stalls
    is not asked less, as it would be by clients that wait for their answers (coordinated omission).
    """
    outcomes: list[Outcome] = []
    local = threading.local()
    began = time.perf_counter()

    def ask(intended: float) -> None:
        if not hasattr(local, "asking"):
            local.asking = make()
        reply = local.asking()
        outcomes.append(Outcome(time.perf_counter() - intended, *reply))

    with ThreadPoolExecutor(min(most, max(1, len(times))), "evodeploy-load") as pool:
        for moment in times:
            time.sleep(max(0.0, began + moment - time.perf_counter()))
            pool.submit(ask, began + moment)
    return outcomes


def closed_loop(make: Callable[[], Asking], connections: int, seconds: float) -> list[Outcome]:
    """Ask in `connections` threads, each as soon as it is answered, until the time is over."""
    found: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
    end = time.perf_counter() + seconds

    def ask() -> None:
        asking = make()
        while (sent := time.perf_counter()) < end:
            reply = asking()
            found.put(Outcome(time.perf_counter() - sent, *reply))

    threads = [threading.Thread(target=ask, name="evodeploy-load") for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found.get() for _ in range(found.qsize())]
