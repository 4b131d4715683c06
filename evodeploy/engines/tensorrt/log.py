"""TensorRT's log: the one logger of a process, who receives its messages, and the errors in them."""

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
    """Passes TensorRT's log on: a process keeps only the first logger it registers.

    To `sink` where there is one, else to the `usual` one.
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
        """Pass it to `sink` inside."""
        before, self.sink = self.sink, sink
        try:
            yield
        finally:
            self.sink = before


@once
def shared_logger(flavour: Flavour) -> tuple[Any, Relay]:
    """Return the process's one logger for `flavour`, and the relay that receives (severity, message).

    TensorRT calls it for every message: only its own logger, which prints, can be given a least severity. The 6,000
    verbose lines of a build take hundredths of a second.
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
    """TensorRT's latest errors with the threads they happened in, None for those that are not Python's."""

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
        """Return the first error of all threads: those that follow are its consequences."""
        return one_line("".join(message for _, message in list(self._logged)[:1]), _NO_REASON)

    def reason(self) -> str:
        """Return the first error of this thread since it was last forgotten, and forget it.

        Where it has none, the first of the threads that TensorRT started for itself.
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
    """Return the process's errors of `flavour` outside builds."""
    errors = Errors()
    shared_logger(flavour)[1].usual = errors
    return errors
