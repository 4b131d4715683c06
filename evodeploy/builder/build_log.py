"""TensorRT's messages while it builds: what of them is logged, and what is read from them."""

from __future__ import annotations

import logging
import re
from typing import TextIO

from evodeploy.engines.tensorrt.log import Errors

_log = logging.getLogger(__name__)

_MEMORY = re.compile(r"Total (Weights|Activation) Memory: (\d+) bytes")
_NOISE = re.compile(r"INT64|Detected invalid timing cache|Make sure \w+ .* has Int64 binding")


class BuildLog:
    """Takes every message: logs it, keeps errors, and writes all to `file` where there is one.

    A warning is logged as one the first time, everything else for debugging. That indices are INT64 is no warning:
    TensorRT computes with them as they are.
    """

    def __init__(self, file: TextIO | None = None) -> None:
        self._file = file
        self._logged: set[str] = set()
        self._errors = Errors()
        self.memory: dict[str, int] = {}  # bytes of Weights and of Activation
        self.loss: OSError | None = None  # why the file does not hold all of it

    def __call__(self, severity: str, message: str) -> None:
        """Take one message; called by TensorRT, so it raises nothing."""
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
        """TensorRT's first error."""
        return self._errors.first()
