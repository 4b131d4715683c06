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

    Messages go to `sink` if there is one, else to `usual`.
    """

    usual: Sink | None = None
    sink: Sink | None = None

    def __call__(self, severity: str, message: str) -> None:
        """Take one message."""
        sink = self.sink or self.usual
        if sink is not None:
            sink(severity, message)

    @contextlib.contextmanager
    def to(self, sink: Sink) -> Iterator[None]:
        """Pass messages to `sink` inside the `with` block."""
        before, self.sink = self.sink, sink
        try:
            yield
        finally:
            self.sink = before


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
            here = threading.get_ident()
            ours = any(thread.ident == here for thread in threading.enumerate())
            self._logged.append((here if ours else None, message))

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
            self._logged.remove(entry)
        return [message for _, message in found]


@once
def engine_errors(flavour: Flavour) -> Errors:
    """Return the process's errors of `flavour` that occur outside of builds."""
    errors = Errors()
    shared_logger(flavour)[1].usual = errors
    return errors
