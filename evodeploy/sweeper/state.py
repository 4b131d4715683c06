"""The results of a sweep so far, in a file that is written after every step."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evodeploy.errors import BadFileError, EvodeployError, UnavailableError
from evodeploy.files import replacing
from evodeploy.schema import SchemaError, document, mapping, matching, number, read_json_file, sequence, text, whole
from evodeploy.text import json_text

_log = logging.getLogger(__name__)

SCHEMA = 1
MOST = 100_000  # candidates, and files
FILES = (
    r"sweep\.json|front\.svg|chosen\.onnx|deploy\.toml"
    r"|models/(elastic|keep-[0-9.e+-]{1,200})\.(fp32|bf16|fp16|int8|fp8)\.onnx"
)

_NUMBERS = sequence(number(0, 1e12), 3, 3)
_STATE = document(
    {
        "schema": whole(SCHEMA, SCHEMA),
        "task": document({"checkpoint": text(64), "reference": text(300)}),
        "accuracies": mapping(_NUMBERS, MOST),
        "speeds": mapping(sequence(_NUMBERS, 0, 99), MOST),
        "failures": mapping(text(10_000), MOST),
        "reference": sequence(number(0, 1e9), 0, MOST),
        "files": sequence(matching(FILES, "the name of a file that a sweep writes"), 0, MOST),
    },
    {"machine": mapping(text(10_000), 100)},  # missing in the states of earlier versions
)


@dataclass
class State:
    """The results so far, by candidate, and the files below the folder that the sweep has written or is about to write.

    `machine` describes where, and with which versions, `speeds` and `reference` were measured. `unavailable` holds the
    reasons why candidates cannot be tried on this machine as it is; the next run tries them again.
    """

    path: Path
    task: dict[str, Any]
    accuracies: dict[str, list[float]] = field(default_factory=dict)
    speeds: dict[str, list[list[float]]] = field(default_factory=dict)  # of each sitting
    failures: dict[str, str] = field(default_factory=dict)
    reference: list[float] = field(default_factory=list)  # seconds of its batch, in each group
    files: list[str] = field(default_factory=list)
    machine: dict[str, str] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)  # not written

    @property
    def left_out(self) -> dict[str, str]:
        """The reasons why candidates cannot be tried."""
        return self.failures | self.unavailable

    def leave_out(self, name: str, error: EvodeployError) -> None:
        """Log and remember that the candidate `name` cannot be tried because of `error`."""
        reasons = self.unavailable if isinstance(error, UnavailableError) else self.failures
        reasons[name] = str(error)
        self.write()
        _log.info(f"left out: {name}: {error}")

    def now_on(self, machine: dict[str, str]) -> None:
        """Forget failures from another machine and, with a warning, its speeds, which are not comparable."""
        changed = [name for name in sorted({**self.machine, **machine}) if self.machine.get(name) != machine.get(name)]
        if changed and self.speeds:
            _log.warning(
                f"the speeds in {self.path} were measured on another machine or with other versions "
                f"({', '.join(changed)} changed): all are measured again, and accuracies are kept"
            )
        if changed:
            self.machine, self.speeds, self.reference, self.failures = machine, {}, [], {}

    def write(self) -> None:
        """Write everything that the next run reads."""
        names = [each.name for each in dataclasses.fields(self) if each.name not in ("path", "unavailable")]
        values = {name: getattr(self, name) for name in names}
        with replacing(self.path) as draft:
            draft.write_text(json_text({"schema": SCHEMA} | values) + "\n", "utf-8")

    def add_file(self, name: str) -> None:
        """Record that the file `name` belongs to the sweep, before it is written."""
        if name not in self.files:
            self.files.append(name)
            self.write()

    @contextlib.contextmanager
    def replacing(self, name: str) -> Iterator[Path]:
        """Yield a draft of the sweep's file `name`."""
        self.add_file(name)
        with replacing(self.path.parent / name) as draft:
            yield draft


def read_state(path: Path) -> State:
    """Return the state in `path`. Raises BadFileError if it is not the state of a sweep."""
    try:
        known = _STATE(read_json_file(path, "the state of a sweep"))
    except (BadFileError, SchemaError) as error:
        raise BadFileError(
            f"{path} is not the state of a sweep ({error}), and not replaced: name another folder with -o"
        ) from error
    return State(
        path,
        known["task"],
        {name: list(values) for name, values in known["accuracies"].items()},
        {name: [list(values) for values in sittings] for name, sittings in known["speeds"].items()},
        known["failures"],
        list(known["reference"]),
        list(known["files"]),
        known.get("machine", {}),
    )
