"""TensorRT's log: the single logger of a process, the receivers of its messages, and the errors in them."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from evodeploy.engines.tensorrt.flavour import Flavour
from evodeploy.engines.tensorrt.once import once
from evodeploy.text import one_line

_NO_REASON = "TensorRT gave no reason"

Sink = Callable[[str, str], None]


class Relay:
    """Passes on TensorRT's log, since a process keeps only the first logger that it registers.

    A message goes to the sink that its thread set. Messages of TensorRT's own threads go to the sink that was set last,
    by any thread. All others go to `usual`.
    """

    usual: Sink | None = None

    def __init__(self) -> None:
        self._sinks: list[tuple[int | None, Sink]] = []  # each with its thread, in the order they were set

    def __call__(self, severity: str, message: str) -> None:
        """Take one message."""
        here = _own_thread()
        found = [sink for thread, sink in self._sinks if here in (thread, None)]
        sink = found[-1] if found else self.usual
        if sink is not None:
            sink(severity, message)

    @contextlib.contextmanager
    def to(self, sink: Sink) -> Iterator[None]:
        """Pass messages to `sink` inside the `with` block."""
        entry = _own_thread(), sink
        self._sinks.append(entry)
        try:
            yield
        finally:
            self._sinks.remove(entry)


def _own_thread() -> int | None:
    """Return the number of this thread, or None if Python did not start it, as with TensorRT's own threads."""
    here = threading.get_ident()
    known = (each.ident for each in threading.enumerate() if not isinstance(each, threading._DummyThread))
    return here if here in known else None


@once
def shared_logger(flavour: Flavour) -> tuple[Any, Relay]:
    """Return the process's only logger for `flavour`, and the relay that receives (severity, message).

    TensorRT calls it for every message. A minimum severity can be set only for TensorRT's own logger, which prints. The
    6,000 verbose lines of a build take hundredths of a second.
    """
    relay = Relay()
    base: Any = flavour.trt.ILogger

    class Logger(base):  # type: ignore[misc]
        def __init__(self) -> None:
            base.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            relay(severity.name, message)

    return Logger(), relay


class Errors:
    """The latest errors of TensorRT with their threads; None for threads that Python did not start."""

    def __init__(self) -> None:
        self._logged: deque[tuple[int | None, str]] = deque(maxlen=256)

    def __call__(self, severity: str, message: str) -> None:
        """Take one message."""
        if severity in ("ERROR", "INTERNAL_ERROR"):
            self._logged.append((_own_thread(), message))

    def forget(self) -> list[str]:
        """Drop the errors of this thread, and return them."""
        return self._taken(threading.get_ident())

    def first(self) -> str:
        """Return the first error of all threads. Later errors are its consequences."""
        return one_line("".join(message for _, message in list(self._logged)[:1]), _NO_REASON)

    def reason(self) -> str:
        """Return the first error of this thread since they were last forgotten, and forget it.

        If this thread has none, it is the first error of the threads that TensorRT started.
        """
        found = self.forget() or self._taken(None)
        return one_line("".join(found[:1]), _NO_REASON)

    def _taken(self, thread: int | None) -> list[str]:
        found = [entry for entry in list(self._logged) if entry[0] == thread]
        for entry in found:
            with contextlib.suppress(ValueError):  # another thread has just taken it
                self._logged.remove(entry)
        return [message for _, message in found]


@once
def engine_errors(flavour: Flavour) -> Errors:
    """Return the process's errors of `flavour` that occur outside of builds."""
    errors = Errors()
    shared_logger(flavour)[1].usual = errors
    return errors
