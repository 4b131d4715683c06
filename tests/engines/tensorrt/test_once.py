"""Objects that a process has one of, when several threads ask at once."""

from __future__ import annotations

import time
from types import ModuleType

from sharing import in_threads

from evodeploy.engines.tensorrt import cuda
from evodeploy.engines.tensorrt.flavour import Flavour
from evodeploy.engines.tensorrt.log import Relay, shared_logger


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
