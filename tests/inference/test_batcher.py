from __future__ import annotations

import concurrent.futures
import gc
import threading
import time
import types
import weakref

import pytest

from evodeploy.errors import BadFileError, RuntimeFailedError, UsageError
from evodeploy.inference.batcher import Batcher, run_alike


class Recorder:
    """Computes the double of each and keeps the sizes of batches; waits at `gate` before each."""

    def __init__(self):
        self.sizes = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, values):
        self.gate.wait(10)
        self.sizes.append(len(values))
        if 13 in values:
            raise RuntimeError("unlucky")
        return [2 * value for value in values]


def refuse_seven(value):
    if value == 7:
        raise BadFileError("seven is broken")
    return value


def batcher(compute, largest=4, patience=0.0):
    return Batcher(refuse_seven, compute, preparers=2, largest=largest, patience=patience)


def test_many_threads_get_their_own_results():
    compute = Recorder()
    many, results = batcher(compute, largest=8, patience=0.01), {}

    def caller(first):
        for value in range(first, first + 50):
            results[value] = many.submit(value).result(10)

    callers = [threading.Thread(target=caller, args=(100 * n,)) for n in range(1, 7)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    many.close()
    assert results == {value: 2 * value for value in results}
    assert len(results) == 300
    assert sum(compute.sizes) == 300
    assert 1 < max(compute.sizes) <= 8


def test_what_waits_while_one_computes_is_run_together_and_no_batch_is_too_large():
    compute = Recorder()
    compute.gate.clear()
    one = batcher(compute)
    futures = [one.submit(value) for value in range(1, 7)] + [one.submit(value) for value in range(20, 25)]
    compute.gate.set()
    assert [future.result(10) for future in futures] == [2, 4, 6, 8, 10, 12, 40, 42, 44, 46, 48]
    one.close()
    assert max(compute.sizes) == 4


def test_what_is_cancelled_while_it_waits_is_not_computed():
    compute = Recorder()
    compute.gate.clear()
    one = batcher(compute, largest=1)
    begun, given_up, wanted = one.submit(1), one.submit(2), one.submit(3)
    while not begun.running():
        time.sleep(0.001)
    assert given_up.cancel()
    assert not begun.cancel()
    compute.gate.set()
    assert [begun.result(10), wanted.result(10)] == [2, 6]
    one.close()
    assert concurrent.futures.wait([given_up], 0).done == {given_up}
    assert compute.sizes == [1, 1]


def test_what_is_cancelled_while_it_waits_takes_no_room_in_a_batch():
    compute = Recorder()
    compute.gate.clear()
    one = Batcher(refuse_seven, compute, preparers=1, largest=6, patience=0.0, weigh=lambda value: value)
    first = one.submit(6)
    while not first.running():
        time.sleep(0.001)
    futures = [one.submit(value) for value in (3, 1, 4, 2, 3)]
    while one._waiting.qsize() < 5:
        time.sleep(0.001)
    assert futures[0].cancel()
    assert futures[2].cancel()
    compute.gate.set()
    assert [futures[place].result(10) for place in (1, 3, 4)] == [2, 4, 6]
    one.close()
    assert compute.sizes == [1, 3]


def test_an_item_alone_is_not_kept_waiting_for_ever():
    one = batcher(Recorder(), patience=0.01)
    assert one.submit(3).result(10) == 6
    one.close()


def test_what_waited_for_a_run_longer_than_its_patience_does_not_wait_for_others_too(monkeypatch):
    compute, clock = Recorder(), types.SimpleNamespace(now=0.0)
    monkeypatch.setattr("evodeploy.inference.batcher.time", types.SimpleNamespace(monotonic=lambda: clock.now))
    compute.gate.clear()
    one = batcher(compute, patience=60.0)
    futures = [one.submit(value) for value in (1, 2, 3, 4)]
    while not all(each.running() for each in futures):
        time.sleep(0.001)
    late = one.submit(5)
    while one._waiting.empty():
        time.sleep(0.001)
    clock.now = 61.0
    compute.gate.set()
    assert late.result(10) == 10
    one.close()


def test_items_weigh_up_to_the_largest_together_and_one_that_weighs_more_runs_alone():
    compute = Recorder()
    compute.gate.clear()
    one = Batcher(refuse_seven, compute, preparers=1, largest=8, patience=0.0, weigh=lambda value: value)
    first = one.submit(8)
    while not first.running():
        time.sleep(0.001)
    futures = [one.submit(value) for value in (3, 5, 1, 9, 2, 2)]
    while one._waiting.qsize() < 6:
        time.sleep(0.001)
    compute.gate.set()
    assert [future.result(10) for future in futures] == [6, 10, 2, 18, 4, 4]
    one.close()
    assert compute.sizes == [1, 2, 1, 1, 2]


def test_a_broken_item_fails_alone_and_a_failing_run_fails_its_items():
    one = batcher(Recorder(), largest=1)
    broken, fine = one.submit(7), one.submit(8)
    with pytest.raises(BadFileError, match="seven"):
        broken.result(10)
    assert fine.result(10) == 16
    with pytest.raises(RuntimeError, match="unlucky"):
        one.submit(13).result(10)
    assert one.submit(14).result(10) == 28
    one.close()


class Item:
    pass


def test_what_failed_does_not_hold_its_items_until_the_garbage_is_collected():
    def fail(items):
        raise RuntimeFailedError("the device is gone")

    def refuse(item):
        raise BadFileError("broken")

    gc.disable()
    try:
        for prepare, compute in ((refuse, len), (lambda item: item, fail)):
            one = Batcher(prepare, compute, preparers=1, largest=4, patience=0.0)
            item = Item()
            held = weakref.ref(item)
            assert one.submit(item).exception(10) is not None
            del item
            one.close()
            del one
            assert held() is None
    finally:
        gc.enable()


def test_closing_finishes_what_was_submitted_and_refuses_more():
    compute = Recorder()
    compute.gate.clear()
    one = batcher(compute)
    futures = [one.submit(value) for value in (1, 2, 3, 4, 5, 6, 8, 9)]
    closing = threading.Thread(target=one.close)
    closing.start()
    compute.gate.set()
    closing.join(10)
    assert not closing.is_alive()
    assert [future.result(0) for future in futures] == [2, 4, 6, 8, 10, 12, 16, 18]
    with pytest.raises(UsageError, match="closed"):
        one.submit(1)
    one.close()


def test_a_cancelled_item_is_not_run():
    held = threading.Event()

    def slow(value):
        held.wait(10)
        return value

    one = Batcher(slow, Recorder(), preparers=1, largest=4, patience=0.0)
    first, second = one.submit(1), one.submit(2)
    assert second.cancel()
    held.set()
    one.close()
    assert first.result(0) == 2
    assert second.cancelled()
    assert concurrent.futures.wait([second], 0).done == {second}  # else it would wait for ever


def test_an_error_among_the_results_is_raised_to_its_caller_alone():
    def compute(values):
        return [BadFileError("unlucky") if value == 13 else value for value in values]

    one = batcher(compute, patience=0.05)
    futures = [one.submit(value) for value in (1, 13, 2)]
    assert [futures[0].result(10), futures[2].result(10)] == [1, 2]
    with pytest.raises(BadFileError, match="unlucky"):
        futures[1].result(10)
    one.close()


def test_items_of_a_kind_run_together_and_results_keep_their_order():
    runs = []

    def double(values, kind):
        runs.append((values, kind))
        return [2 * value for value in values]

    assert run_alike([5, 3, 8, 4, 6], lambda value: value % 3, double) == [10, 6, 16, 8, 12]
    assert runs == [([5, 8], 2), ([3, 6], 0), ([4], 1)]


def test_a_run_that_fails_is_the_result_of_its_items_alone():
    def refuse_threes(values, kind):
        if kind == 0:
            raise BadFileError("no threes")
        return values

    found = run_alike([3, 4, 6, 7], lambda value: value % 3, refuse_threes)
    assert (found[1], found[3]) == (4, 7)
    assert [str(error) for error in found[::2]] == ["no threes"] * 2
