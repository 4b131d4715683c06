from __future__ import annotations

import gc
import threading
import time
import weakref

import pytest

from evodeploy.errors import BadFileError, RuntimeFailedError
from evodeploy.inference.pipeline import pipelined


def doubled(values):
    return [2 * value for value in values]


def failing_at(*broken):
    def prepare(item):
        if item in broken:
            raise BadFileError(f"{item} is broken")
        return item

    return prepare


def run(items, prepare=lambda item: item, compute=doubled, **options):
    return pipelined(
        items, prepare, compute, lambda item, error: (item, str(error)), **{"batch": 4, "preparers": 3} | options
    )


@pytest.mark.parametrize("count", [0, 1, 4, 5, 100])
def test_results_come_in_order(count):
    def slow_for_some(item):
        time.sleep(0.002 * (item % 3))
        return item

    assert list(run(range(count), slow_for_some)) == doubled(range(count))


def test_a_broken_item_takes_its_place_and_the_others_are_computed():
    got = list(run(range(9), failing_at(0, 5, 8)))
    assert got == [(0, "0 is broken"), 2, 4, 6, 8, (5, "5 is broken"), 12, 14, (8, "8 is broken")]


def test_nothing_is_computed_where_all_are_broken():
    def never(values):
        raise AssertionError

    assert len(list(run(range(6), failing_at(*range(6)), never))) == 6


def test_the_source_is_read_as_results_are_taken():
    read = []

    def source():
        for item in range(1000):
            read.append(item)
            yield item

    results = run(source())
    assert read == []
    taken = [next(results) for _ in range(10)]
    assert taken == doubled(range(10))
    assert len(read) <= 10 + 3 * 4
    results.close()


def test_preparing_computing_and_taking_overlap():
    """Each side waits for the other: the stream would hang if they did not run at the same time."""
    prepared, computed = threading.Event(), threading.Event()

    def prepare(item):
        if item == 4:  # of the second batch, while the first is computed
            prepared.set()
        return item

    def compute(values):
        assert prepared.wait(10)
        computed.set()
        return values

    results = run(range(8), prepare, compute, preparers=1)
    assert next(results) == 0
    assert computed.is_set()
    assert list(results) == list(range(1, 8))


def test_closing_early_leaves_no_thread_behind():
    before = threading.active_count()
    results = run(range(1000))
    next(results)
    assert threading.active_count() > before
    results.close()
    assert threading.active_count() == before


class Tensor:
    """Something large that must not outlive its batch."""


def test_a_broken_item_does_not_hold_its_batch_until_the_garbage_is_collected():
    held = []

    def prepare(item):
        if item == 1:
            raise BadFileError("broken")
        tensor = Tensor()
        held.append(weakref.ref(tensor))
        return tensor

    gc.disable()
    try:
        answers = list(run(range(8), prepare, lambda tensors: [0] * len(tensors)))
        assert isinstance(answers[1], tuple)
        assert len(held) == 7
        assert [tensor() for tensor in held] == [None] * 7
    finally:
        gc.enable()


def test_what_computing_raises_ends_the_stream():
    def fails(values):
        raise RuntimeFailedError("the device is gone")

    before = threading.active_count()
    with pytest.raises(RuntimeFailedError, match="the device is gone"):
        list(run(range(10), compute=fails))
    assert threading.active_count() == before


def test_an_error_among_the_results_takes_its_place():
    def compute(values):
        return [BadFileError(f"{value} is odd") if value % 2 else value for value in values]

    assert list(run(range(5), failing_at(2), compute)) == [0, (1, "1 is odd"), (2, "2 is broken"), (3, "3 is odd"), 4]
