"""The answers of an evaluation on disk, one line of JSON per image, so that an interrupted run can resume."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from evodeploy.errors import BadFileError, UsageError, unwritten
from evodeploy.files import open_regular
from evodeploy.schema import Rule, SchemaError, number, read_json, sequence, text, whole

_ENTRY = sequence(Rule("anything", lambda value, field: value), 3, 3)
_RANKED = sequence(sequence(whole(0, 1_000_000), 1, 1000), 0, 1000)
_SECONDS = sequence(number(0, 1e9), 0, 1000)
_ERROR = text(100_000)


@dataclass(frozen=True)
class Answer:
    """The answers of all artefacts to one image: the best classes, and the image's share of the seconds, of each.

    If the image could not be read, only `error` is set.
    """

    ranked: tuple[tuple[int, ...], ...] = ()
    seconds: tuple[float, ...] = ()
    error: str = ""


class Journal:
    """Answers in the order of the images, each written at once. Without a path they are kept only in memory."""

    def __init__(self, path: Path | None, task: Mapping[str, Any], fresh: bool = False) -> None:
        """Read the answers of `task` from `path`, unless `fresh`. Raises UsageError if it belongs to another task."""
        self.path, self._task = path, dict(task)
        self.answers: list[Answer] = []
        self._whole = 0  # bytes of the file that are complete lines
        self._file: FileIO | None = None
        if path is not None and path.exists() and not fresh:
            self._read(path)

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Write the appended answers while the context is open. If the body fails, the file remains."""
        if self.path is None:
            yield
            return
        with contextlib.ExitStack() as stack:
            with _writing(self.path):
                self._file = stack.enter_context(self.path.open("ab", buffering=0))  # closing writes nothing
                self._file.truncate(self._whole)  # drops a line that was incomplete when the last run ended
            if not self._whole:
                self._write(self._task)
            yield

    def append(self, answer: Answer) -> None:
        """Add the answer of the next image."""
        self.answers.append(answer)
        self._write([answer.ranked, answer.seconds, answer.error])

    def _write(self, line: object) -> None:
        if self._file is not None and self.path is not None:
            with _writing(self.path):
                data = json.dumps(line).encode() + b"\n"
                if self._file.write(data) < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _read(self, path: Path) -> None:
        with open_regular(path, "the beginning of an evaluation") as file:
            for number, line in enumerate(file):
                entry = _parsed(line)
                if entry is None:  # incomplete: that image is run again
                    return
                if number == 0 and entry != self._task:
                    raise UsageError(
                        f"{path} belongs to another evaluation: remove it, pass --force to start over, or "
                        "name another output with -o"
                    )
                if number:
                    self.answers.append(self._answer(entry, f"{path}, line {number + 1}"))
                self._whole += len(line)

    def _answer(self, entry: Any, place: str) -> Answer:
        try:
            _ENTRY(entry, "an answer")
            answer = Answer(_RANKED(entry[0], "classes"), _SECONDS(entry[1], "seconds"), _ERROR(entry[2], "error"))
            artefacts = 0 if answer.error else len(self._task["artefacts"])
            for name, values in (("classes", answer.ranked), ("seconds", answer.seconds)):
                if len(values) != artefacts:
                    raise SchemaError(name, values, f"a list of {artefacts}, one for each artefact")
        except SchemaError as error:
            raise BadFileError(f"{place}: {error}: remove the file, or pass --force to start over") from error
        return answer


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unwritten(path, error) from error


def _parsed(line: bytes) -> Any:
    try:
        return read_json(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
