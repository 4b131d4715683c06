"""TensorRT's log while it builds: what of it is told, and what is read from it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TextIO

from evodeploy.text import one_line

_MEMORY = re.compile(r"Total (Weights|Activation) Memory: (\d+) bytes")
_NOISE = re.compile(r"INT64|Detected invalid timing cache|Make sure output .* has Int64 binding")


class BuildLog:
    """Hears every message: warnings are told once each, errors kept, all of it written to `file` where there is one.

    With `verbose` everything is told. That indices are INT64 is no warning: TensorRT computes with them as they are.
    """

    def __init__(self, tell: Callable[[str], None], *, verbose: bool = False, file: TextIO | None = None) -> None:
        self.tell, self._verbose, self._file = tell, verbose, file
        self._told: set[str] = set()
        self._errors: list[str] = []
        self.memory: dict[str, int] = {}  # bytes of Weights and of Activation
        self.loss: OSError | None = None  # why the file does not hold all of it

    def __call__(self, severity: str, message: str) -> None:
        """Take one message; called by TensorRT, so it raises nothing."""
        if self._file is not None and self.loss is None:
            try:
                self._file.write(f"[{severity}] {message}\n")
            except OSError as error:
                self.loss = error
        if severity in ("ERROR", "INTERNAL_ERROR"):
            self._errors.append(message)
        for kind, size in _MEMORY.findall(message):
            self.memory[kind] = int(size)
        warning = severity == "WARNING" and message not in self._told and not _NOISE.search(message)
        if self._verbose or warning:
            self._told.add(message)
            self.tell(f"TensorRT {severity.lower()}: {message.strip()}")

    @property
    def reason(self) -> str:
        """TensorRT's first error: those that follow are its consequences."""
        return one_line("".join(self._errors[:1]), "TensorRT gave no reason")
