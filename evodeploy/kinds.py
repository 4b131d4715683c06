"""The kinds of files: those that stages read, by suffix, and those that commands write, also by how they begin.

`--force` never replaces a file of another kind.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from evodeploy.errors import UsageError

ArtefactKind = Literal["checkpoint", "onnx", "engine"]

ARTEFACTS: dict[str, ArtefactKind] = {
    ".pth": "checkpoint",
    ".pt": "checkpoint",
    ".bin": "checkpoint",
    ".safetensors": "checkpoint",
    ".onnx": "onnx",
    ".engine": "engine",
}


def suffix_of(path: str | os.PathLike[str]) -> str:
    """Return the suffix in lower case: it gives the kind of a file, and some systems write it in capitals."""
    return os.path.splitext(os.fspath(path).rstrip("/"))[1].lower()  # noqa: PTH122 - a Path costs ten times as much


def kind_of(path: str | os.PathLike[str]) -> ArtefactKind:
    """Return the kind of `path` by its suffix, in any case. Raises UsageError for a suffix that no stage uses."""
    kind = ARTEFACTS.get(suffix_of(path))
    if kind is None:
        raise UsageError(f"cannot infer what {path} is: expected a name that ends with {', '.join(ARTEFACTS)}")
    return kind


def is_deploy_file(path: str | os.PathLike[str]) -> bool:
    """Return whether `path` is a deploy file, which names an artefact and how to run it, by its suffix."""
    return suffix_of(path) == ".toml"


HEAD = 4096  # bytes that are read at the start of a file
FOOT = 1 << 16


@dataclass(frozen=True)
class Kind:
    """A kind of output: its name, its suffixes (none: any suffix), how its files begin, and what they end with.

    `record` is a suffix to the file's name: a file next to an engine's record is of this kind, however it begins.
    """

    name: str
    suffixes: tuple[str, ...]
    begins: re.Pattern[bytes]
    ends: tuple[bytes, ...] = ()
    record: str = ""

    def check_suffix(self, path: Path) -> None:
        """Raise UsageError if `path` has a suffix that files of this kind do not have."""
        if self.suffixes and path.suffix.lower() not in self.suffixes:
            raise UsageError(
                f"{path} would be {self.name}, expected a name that ends with {' or '.join(self.suffixes)}"
            )

    def is_kind_of(self, path: Path) -> bool:
        """Return whether the file at `path` looks like this kind. An empty file always does: it has nothing to lose."""
        with path.open("rb") as file:
            head = file.read(HEAD)
            if not head:
                return True
            size = file.seek(0, 2)
            file.seek(max(0, size - FOOT))
            foot = file.read(FOOT) if self.ends else b""
        if self.begins.match(head) and all(part in foot for part in self.ends):
            return True
        record = path.with_name(path.name + self.record)
        return bool(self.record) and record.is_file() and RECORD.is_kind_of(record)


def _kind(name: str, suffixes: str, begins: bytes, *ends: bytes, record: str = "") -> Kind:
    return Kind(name, tuple(suffixes.split()), re.compile(begins, re.DOTALL), ends, record)


ONNX = _kind("an ONNX file", ".onnx", rb"\x08[\x01-\x20]")
RECORD = _kind("an engine's record", ".json", rb'\{\s*"runtime":')
ENGINE = _kind("an engine", ".engine", rb"[a-z]trt", record=".json")
CHECKPOINT = _kind("a checkpoint", ".pth .pt .bin", rb"PK\x03\x04")
REPORT = _kind("a JSON report", ".json", rb'\{\s*"schema": *\d')
TRAINING = _kind("an interrupted distillation", ".part", rb"PK\x03\x04")
JOURNAL = _kind("an interrupted evaluation", ".part", rb'\{"artefacts": ')
MEASUREMENTS = _kind("a table of measurements", ".csv", rb"engine,model,precision,")
PAGE = _kind("a report page", ".html .htm", rb'<!doctype html>.{0,99}<meta name="generator" content="evodeploy">')
DRAWING = _kind("a drawing", ".svg", rb'<svg [^>]*data-made-by="evodeploy"')
DEPLOY = _kind("a deploy file", ".toml", rb"# Written by evodeploy sweep")
PICTURE = _kind("a picture of kept tokens", ".png", rb"\x89PNG\r\n.{0,99}tEXtSoftware\x00evodeploy")
TIMINGS = _kind("a timing cache", "", b"")  # TensorRT itself checks the content
LOG = _kind("a build's log", "", rb"\[[A-Z_]+\] ")
PREDICTIONS = {
    ".jsonl": _kind("predictions as JSON lines", ".jsonl", rb'\{"image": '),
    ".csv": _kind("predictions as CSV", ".csv", rb"image,(label_1|error)"),
    ".parquet": _kind("predictions as Parquet", ".parquet", b"PAR1", b"image", b"probabilities", b"PAR1"),
}
