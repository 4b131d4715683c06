"""What one step finds out, in a file that is complete after every line: a step that is cut short leaves what it had."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpu.on_driver import is_shim

from evodeploy.machine.driver import driver_problem

VARIABLE = "EVODEPLOY_GPU_FACTS"  # names the file to the step's process


class NotRunError(Exception):
    """What a check needs is not on this machine; the message says what."""


def need_gpu() -> None:
    """Raise NotRunError without a driver, where a runtime would end this process, and on the shim."""
    problem = driver_problem() or ("the shim is no GPU" if is_shim() else None)
    if problem:
        raise NotRunError(problem)


def need_pycuda() -> None:
    """Raise NotRunError where pycuda or cuda-bindings is missing, without which evodeploy opens no engine."""
    try:
        importlib.import_module("pycuda")
        importlib.import_module("cuda.bindings.driver")
    except ImportError as error:
        raise NotRunError(f"pycuda or cuda-bindings is not here ({error}): the step runner compiles pycuda") from error


class Facts:
    """The checks of a step, each with its outcome (passed, failed, not run), what it measured, and whole benches.

    Nothing is kept without a `path`.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._found: dict[str, Any] = {"checks": {}, "benches": []}

    @property
    def failed(self) -> bool:
        """Whether any check was."""
        return any(check["outcome"] == "failed" for check in self._found["checks"].values())

    @contextlib.contextmanager
    def check(self, name: str) -> Iterator[dict[str, Any]]:
        """A check by its name; what is inside fills the dictionary with what it measures, and raises to fail.

        NotRunError means that it could not be run here. The next check is run in any case.
        """
        measured: dict[str, Any] = {}
        start = time.perf_counter()
        outcome, reason = "failed", "ended before its result"
        self._found["checks"][name] = {"outcome": outcome, "reason": reason}
        self._write()
        try:
            yield measured
        except NotRunError as error:
            outcome, reason = "not run", str(error)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"[-2000:]
            traceback.print_exc()
        else:
            outcome, reason = "passed", ""
        self.record(name, outcome, reason, time.perf_counter() - start, measured)

    def record(self, name: str, outcome: str, reason: str, seconds: float, measured: dict[str, Any]) -> None:
        """The result of a check that something else has run."""
        self._found["checks"][name] = {
            "outcome": outcome, "seconds": round(seconds, 3), "reason": reason, "measured": dict(measured),
        }  # fmt: skip
        print(f"{outcome}: {name} ({seconds:.1f} s){': ' + reason if reason else ''}", flush=True)
        self._write()

    def bench(self, document: dict[str, Any]) -> None:
        """Keep a whole bench, as `evodeploy bench -o` writes it, in place of one of the same model."""
        name = document["model"]["name"]
        others = [bench for bench in self._found["benches"] if bench["model"]["name"] != name]
        self._found["benches"] = [*others, document]
        self._write()

    def _write(self) -> None:
        if self._path is not None:
            write_json(self._path, self._found)


def of_this_process() -> Facts:
    """The facts that whatever started this process reads, or facts that nobody does."""
    named = os.environ.get(VARIABLE)
    return Facts(Path(named) if named else None)


def write_json(path: Path, found: object) -> None:
    """Replace `path` by what is valid JSON: numbers that are none are written as text."""
    draft = path.with_name(path.name + ".draft")
    draft.write_text(json.dumps(_plain(found), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    draft.replace(path)


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)
    return value if value is None or isinstance(value, (str, bool, int, float)) else str(value)
