"""TensorRT's messages during a build: which of them are logged, and what is read from them."""

from __future__ import annotations

import logging
import re
from typing import TextIO

from evodeploy.engines.tensorrt.log import Errors

_log = logging.getLogger(__name__)

_MEMORY = re.compile(r"Total (Weights|Activation) Memory: (\d+) bytes")
_NOISE = re.compile(r"INT64|Detected invalid timing cache|Make sure \w+ .* has Int64 binding")


class BuildLog:
    """Receives every message, logs it, keeps errors, and writes everything to `file` if there is one.

    A warning is logged as a warning the first time; everything else is logged for debugging. Warnings about INT64
    indices are ignored, because TensorRT computes with them correctly.
    """

    def __init__(self, file: TextIO | None = None) -> None:
        self._file = file
        self._logged: set[str] = set()
        self._errors = Errors()
        self.memory: dict[str, int] = {}  # bytes of Weights and of Activation
        self.loss: OSError | None = None  # why the file is incomplete

    def __call__(self, severity: str, message: str) -> None:
        """Take one message. Raises nothing, because TensorRT calls it."""
        if self._file is not None and self.loss is None:
            try:
                self._file.write(f"[{severity}] {message}\n")
            except OSError as error:
                self.loss = error
        self._errors(severity, message)
        for kind, size in _MEMORY.findall(message):
            self.memory[kind] = int(size)
        warning = severity == "WARNING" and message not in self._logged and not _NOISE.search(message)
        if warning:
            self._logged.add(message)
        _log.log(logging.WARNING if warning else logging.DEBUG, "TensorRT %s: %s", severity.lower(), message.strip())

    @property
    def reason(self) -> str:
        """The first error of TensorRT."""
        return self._errors.first()
