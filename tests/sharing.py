"""What threads do at once: share an engine, for contract tests, or refuse each other."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable

import numpy as np

from evodeploy.engines.base import Array, Engine
from evodeploy.errors import UsageError

THREADS = 4
RUNS = 200  # of each thread
LONGEST = 3  # images in a batch


def in_threads(work: Callable[[int], None], count: int = THREADS) -> None:
    """Call `work` with 0, 1, … in `count` threads that start together; raises the first error that one raised."""
    errors: list[BaseException] = []
    together = threading.Barrier(count)

    def one(number: int) -> None:
        try:
            together.wait()
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def refused_in_thread(call: Callable[[], object]) -> str | None:
    """The message of the UsageError that `call` raises in another thread, or None."""
    try:
        in_threads(lambda _: call(), 1)
    except UsageError as error:
        return str(error)
    return None


def batches_of(engine: Engine, seed: int = 0) -> list[Array]:
    """Batches of different images and sizes that `engine` takes."""
    shape = [size or 1 for size in engine.inputs[0].shape[1:]]
    images = np.random.default_rng(seed).standard_normal((12, *shape)).astype(engine.inputs[0].dtype)
    return [images[start : start + size] for size in range(1, LONGEST + 1) for start in range(0, 12 - size, 3)]


def same(got: dict[str, Array], expected: dict[str, Array]) -> None:
    """The same outputs to the last bit: any difference is an answer to other images."""
    assert list(got) == list(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)


def check_runs(engine: Engine) -> None:
    """Runs of several threads give what one thread gets, and nothing changes an answer afterwards."""
    batches = batches_of(engine)
    expected = [engine.run(batch) for batch in batches]

    def work(number: int) -> None:
        held = []
        for turn in range(RUNS):
            index = (number * 5 + turn * 7) % len(batches)
            held.append((index, engine.run(batches[index])))
        for index, got in held:
            same(got, expected[index])

    in_threads(work)


def check_streams(engine: Engine) -> None:
    """So do streams of several threads, each with its batches in its order."""
    batches = batches_of(engine)
    expected = [engine.run(batch) for batch in batches]

    def work(number: int) -> None:
        order = np.random.default_rng(number).permutation(len(batches))
        streamed = engine.run_many(batches[index] for index in order)
        for index, got in zip(order, streamed, strict=True):
            same(got, expected[index])

    in_threads(work)


def check_close(engine: Engine) -> None:
    """`close` while threads run: each gets right answers, and then the error of a closed engine."""
    batches = batches_of(engine)
    expected = [engine.run(batch) for batch in batches]
    under_way = threading.Barrier(THREADS + 1)

    def work(number: int) -> None:
        if number == THREADS:
            under_way.wait()
            engine.close()
            return
        for turn in itertools.count(number):
            index = turn % len(batches)
            if turn == number + 2:
                under_way.wait()
            try:
                got = engine.run(batches[index])
            except UsageError as error:
                assert "closed" in str(error), error
                return
            same(got, expected[index])

    in_threads(work, THREADS + 1)


def check_residents(engine: Engine) -> None:
    """Each thread has a batch of its own on the device, while the others time theirs and run."""
    batches = batches_of(engine)
    expected = [engine.run(batch) for batch in batches]

    def work(number: int) -> None:
        for index in range(number, len(batches), THREADS):
            resident = engine.resident(batches[index])
            assert resident is not None
            for _ in range(5):
                assert resident.time() > 0
                same(engine.run(batches[-index]), expected[-index])
            same(resident.outputs(), expected[index])
            resident.close()

    in_threads(work)
