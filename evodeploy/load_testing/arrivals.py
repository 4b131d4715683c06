"""The times at which requests are sent: drawn in advance, regardless of the answers to earlier requests.

Each client is a thread with its own connection. An interrupt stops them all: none sends another request, and the
process does not wait for their answers.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from evodeploy.load_testing.records import Outcome, Reply

Asking = Callable[[], Reply]  # sends one request


def poisson(rate: float, seconds: float, seed: int) -> list[float]:
    """Draw times from 0 to `seconds` of independent requests, `rate` per second on average."""
    generator = np.random.default_rng(seed)
    count = int(generator.poisson(rate * seconds))
    return sorted(generator.uniform(0, seconds, count).tolist())


def open_loop(make: Callable[[], Asking], times: Sequence[float], most: int) -> list[Outcome]:
    """Send a request at each of `times`, in seconds from now, with up to `most` clients.

    If no client is free, a request waits for one, and its latency counts from its intended time. So a server that
    stalls gets no fewer requests, as it would from clients that wait for their answers (coordinated omission).
    """
    outcomes: list[Outcome] = []
    due: queue.SimpleQueue[float | None] = queue.SimpleQueue()  # None marks the end, for all clients
    free, over = threading.Semaphore(0), threading.Event()
    began = time.perf_counter()

    def ask() -> None:
        asking = make()
        while (intended := due.get()) is not None and not over.is_set():
            reply = asking()
            outcomes.append(Outcome(time.perf_counter() - intended, *reply))
            free.release()
        due.put(None)

    clients: list[threading.Thread] = []
    try:
        for moment in times:
            time.sleep(max(0.0, began + moment - time.perf_counter()))
            if not free.acquire(blocking=False) and len(clients) < most:
                clients.append(_started(ask))
            due.put(began + moment)
        due.put(None)
        for client in clients:
            client.join()
    finally:
        over.set()
        due.put(None)
    return outcomes


def closed_loop(make: Callable[[], Asking], connections: int, seconds: float) -> list[Outcome]:
    """Send requests with `connections` clients, each as soon as the last one is answered, until the time is over."""
    outcomes: list[Outcome] = []
    over = threading.Event()
    end = time.perf_counter() + seconds

    def ask() -> None:
        asking = make()
        while (sent := time.perf_counter()) < end and not over.is_set():
            reply = asking()
            outcomes.append(Outcome(time.perf_counter() - sent, *reply))

    try:
        for client in [_started(ask) for _ in range(connections)]:
            client.join()
    finally:
        over.set()
    return outcomes


def _started(ask: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=ask, name="evodeploy-load", daemon=True)
    thread.start()
    return thread
