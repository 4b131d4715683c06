"""Objects that a process has one of, when several threads ask at once."""

from __future__ import annotations

import _thread
import collections
import threading
import time
from types import ModuleType

from sharing import in_threads

from evodeploy.engines.tensorrt import cuda
from evodeploy.engines.tensorrt.flavour import Flavour
from evodeploy.engines.tensorrt.log import Errors, Relay, shared_logger


def test_threads_that_open_a_gpu_together_share_it(monkeypatch):
    """Each would otherwise hold a lock of its own while it records."""
    made = []

    def slow(index):
        made.append(index)
        time.sleep(0.05)
        return object()

    monkeypatch.setattr(cuda, "Device", slow)
    found = []
    in_threads(lambda number: found.append(cuda.device(1000)))
    assert made == [1000]
    assert len(set(found)) == 1


def test_threads_that_load_engines_together_share_the_logger():
    """TensorRT takes one in a process: what hears the other hears nothing."""
    module = ModuleType("slow")

    def slow(name):
        time.sleep(0.05)
        return object

    module.__getattr__ = slow
    found = []
    in_threads(lambda number: found.append(shared_logger(Flavour("slow", module))[1]))
    assert len(set(found)) == 1


def test_an_engine_that_is_opened_during_a_build_hears_of_errors_after_it():
    relay, build, errors = Relay(), [], []
    with relay.to(lambda *message: build.append(message)):
        relay.usual = lambda *message: errors.append(message)
        relay("ERROR", "of the build")
    relay("ERROR", "of the engine")
    assert (build, errors) == ([("ERROR", "of the build")], [("ERROR", "of the engine")])


def test_builds_in_two_threads_hear_what_is_theirs_and_an_engine_in_a_third_the_rest():
    relay, heard = Relay(), [[], [], []]
    relay.usual = lambda severity, message: heard[2].append(message)
    all_there, all_said, first_left = threading.Barrier(3), threading.Barrier(3), threading.Event()

    def said(number):
        all_there.wait(60)
        relay("ERROR", f"of {number}")
        all_said.wait(60)

    def work(number):
        if number == 2:
            said(number)
            return
        with relay.to(lambda severity, message: heard[number].append(message)):
            said(number)
            assert number == 0 or first_left.wait(60)
        first_left.set()

    in_threads(work, 3)
    relay("ERROR", "later")
    assert heard == [["of 0"], ["of 1"], ["of 2", "later"]]


def test_an_error_of_tensorrts_own_thread_is_known_as_such_also_after_that_thread_was_logged():
    """Logging makes Python list a thread that it did not start."""
    errors, done = Errors(), threading.Event()

    def fail():
        threading.current_thread()
        errors("ERROR", "of a worker")
        done.set()

    _thread.start_new_thread(fail, ())
    assert done.wait(60)
    assert errors.reason() == "of a worker"


def test_an_error_that_two_threads_take_at_a_time_costs_neither_its_reason():
    class Shared(collections.deque):
        def remove(self, entry):
            self.clear()  # the other thread was faster
            super().remove(entry)

    errors, done = Errors(), threading.Event()
    _thread.start_new_thread(lambda: errors("ERROR", "no kernel") or done.set(), ())
    done.wait()
    errors._logged = Shared(errors._logged)
    assert errors.reason() == "no kernel"
