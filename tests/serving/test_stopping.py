"""The signals that end a service."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from evodeploy.serving.service import until_stopped


@pytest.fixture
def handlers():
    """Put back what handles the signals."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_another_thread_receives_ends_the_wait(handlers, number):
    """The kernel may choose any thread, or the main one just before it waits: then nothing interrupts the wait."""
    before = signal.getsignal(signal.SIGTERM)  # the last that is replaced

    def kill():
        while signal.getsignal(signal.SIGTERM) is before:
            time.sleep(0.01)
        time.sleep(0.3)  # until the main thread waits
        signal.pthread_kill(threading.get_ident(), number)

    thread = threading.Thread(target=kill)
    thread.start()
    until_stopped(lambda: None)
    thread.join()


@pytest.mark.timeout(60)
def test_a_signal_while_it_is_announced_ends_the_wait(handlers):
    """Its handler is called, no signal raised: one that a library handles as well can end the process of the tests."""
    until_stopped(lambda: signal.getsignal(signal.SIGTERM)(signal.SIGTERM, None))
