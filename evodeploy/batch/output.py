"""The folder that a run writes: its manifest, a part for each finished shard, and a mark when all are complete.

manifest.json                 which run this is: artefact, list of inputs, options
predictions/part-00000.parquet   the answers of shard 0, in the order of its images
errors/part-00000.parquet     the images of shard 0 without a prediction, if there are any
_SUCCESS                      a summary, when every shard is finished
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from evodeploy.errors import EvodeployError, UsageError
from evodeploy.files import replacing
from evodeploy.locks import DRAFT, LOCK, flock
from evodeploy.schema import SchemaError, document, matching, number, read_json_file, sequence, text, whole
from evodeploy.text import brief

# The image of a row: the path as it was listed, and the row number if that is a Parquet file (else null).
IDENTITY = {"path": pa.string(), "row": pa.int64()}
CLASSES = {"labels": pa.list_(pa.string()), "indices": pa.list_(pa.int32()), "probabilities": pa.list_(pa.float32())}
FEATURES = {"features": pa.list_(pa.float32())}
ERROR = {"error": pa.string()}
MANIFEST = document(
    {
        **{name: matching("[0-9a-f]{64}", "a SHA-256") for name in ("artefact", "inputs")},
        "engine": text(1000, least=1),
        "keep_ratios": sequence(number(0, 1, above=True), 0, 64),
        **{name: whole(0, 10**15) for name in ("images", "batch", "top", "shard")},
    }
)
MARKS, KINDS = ("_SUCCESS", "manifest.json"), ("predictions", "errors")  # files, and folders of parts
PART = re.compile(r"part-[0-9]{5,}\.parquet")
DRAFTS = re.compile(rf"\.(part-\d{{5,}}\.parquet|manifest\.json|_SUCCESS)\.({DRAFT}|{LOCK})")


@dataclass(frozen=True)
class OutputFolder:
    """The output of a run. Parts are written atomically, errors before predictions: then the shard is finished."""

    path: Path

    @contextlib.contextmanager
    def claimed(self, manifest: Mapping[str, Any], force: bool) -> Iterator[None]:
        """Hold the folder for the run that `manifest` describes, to begin or to resume it.

        Raises UsageError if the folder holds something else, another run that `force` does not discard, or a run that
        is still writing.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            folder = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise UsageError(f"cannot write to {self.path}: {error.strerror or error}") from error
        try:
            try:
                flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel releases it, however this process ends
            except BlockingIOError as error:
                raise UsageError(
                    f"another run is writing to {self.path}: wait until it ends, or choose another --output"
                ) from error
            self._check(dict(manifest), force)
            self._tidy()
            yield
        finally:
            os.close(folder)

    def has(self, path: str) -> bool:
        """Return whether `path` is a place where a run writes a file in this folder."""
        folder, name = os.path.split(path)
        if name in MARKS:
            return os.path.realpath(folder) == os.path.realpath(self.path)
        if not PART.fullmatch(name):
            return False
        home, kind = os.path.split(os.path.realpath(folder))
        return kind in KINDS and home == os.path.realpath(self.path)

    def is_finished(self, number: int, images: int) -> bool:
        """Return whether the parts of shard `number` exist and hold all of its `images`."""
        predictions, errors = self._part("predictions", number), self._part("errors", number)
        if not predictions.exists():
            return False
        try:
            rows = sum(pq.read_metadata(part).num_rows for part in (predictions, errors) if part.exists())
        except (pa.ArrowException, OSError):  # truncated by a power failure
            return False
        return bool(rows == images)

    def write(self, number: int, results: pa.Table) -> None:
        """Write the parts of shard `number` from the answers and errors for all of its images."""
        results = results.sort_by("position")
        broken = pc.is_valid(results["error"])
        if pc.any(broken).as_py():
            self._write("errors", number, results.filter(broken).select([*IDENTITY, *ERROR]))
        else:  # there may be one from before the predictions were damaged
            self._part("errors", number).unlink(missing_ok=True)
        answers = [name for name in results.column_names if name in {*IDENTITY, *CLASSES, *FEATURES}]
        self._write("predictions", number, results.filter(pc.invert(broken)).select(answers))

    def count(self, kind: str) -> int:
        """Return the number of rows in the parts of predictions or errors."""
        return sum(pq.read_metadata(part).num_rows for part in (self.path / kind).glob("part-*.parquet"))

    def complete(self, summary: Mapping[str, Any]) -> None:
        """Mark the run as complete."""
        _write_json(self.path / "_SUCCESS", summary)

    def _check(self, manifest: dict[str, Any], force: bool) -> None:
        path = self.path / "manifest.json"
        names = {found.name for found in self.path.iterdir() if not _is_draft(found)}
        others = names - ({*MARKS, *KINDS} if path.exists() else set())
        if others:
            raise UsageError(f"{self.path} holds other things ({min(others)}): choose an empty or a new folder")
        found = self._manifest() if names else None
        if found is not None and force:
            self._discard()
            found = None
        if found is None:
            _write_json(path, manifest)
            return
        differing = [name for name in manifest if found.get(name) != manifest[name]]
        if differing:
            name = differing[0]
            was = brief(str(found.get(name)))
            raise UsageError(
                f"{self.path} belongs to another run (its {name}: {was}, now {manifest[name]}): "
                "choose another --output, or pass --force to start over"
            )

    def _manifest(self) -> dict[str, Any]:
        """Return the manifest of the run that wrote this folder. Raises UsageError if there is none."""
        path = self.path / "manifest.json"
        try:
            return MANIFEST(read_json_file(path, "a batch run's manifest"))
        except (EvodeployError, SchemaError) as error:
            raise UsageError(f"{path} is not a batch run's manifest ({error}): choose another --output") from error

    def _discard(self) -> None:
        """Remove the files of a run, the manifest last. If there are other files, raise UsageError and remove none."""
        folders = [self.path / kind for kind in KINDS if os.path.lexists(self.path / kind)]
        marks = [self.path / name for name in MARKS if os.path.lexists(self.path / name)]
        for folder in folders:
            if not stat.S_ISDIR(folder.lstat().st_mode):
                raise UsageError(f"{folder} is not a batch run's folder: choose another --output")
        parts = [part for folder in folders for part in folder.iterdir()]
        ours = {part for part in parts if PART.fullmatch(part.name) or _is_draft(part)}
        for file in [*parts, *marks]:
            if not stat.S_ISREG(file.lstat().st_mode) or file not in {*ours, *marks}:
                raise UsageError(f"{file} is not a batch run's file: move it, or choose another --output")
        for file in [*marks[:-1], *parts]:
            file.unlink()
        for folder in folders:
            folder.rmdir()
        marks[-1].unlink()

    def _tidy(self) -> None:
        """Remove what a killed run left: drafts, and errors whose predictions were not written."""
        for folder in (self.path, *(self.path / kind for kind in KINDS)):
            for draft in filter(_is_draft, folder.glob(".*")):
                draft.unlink()
        for kind in KINDS:
            (self.path / kind).mkdir(exist_ok=True)
        for errors in (self.path / "errors").glob("part-*.parquet"):
            if errors.is_file() and not (self.path / "predictions" / errors.name).exists():
                errors.unlink()

    def _part(self, kind: str, number: int) -> Path:
        return self.path / kind / f"part-{number:05}.parquet"

    def _write(self, kind: str, number: int, table: pa.Table) -> None:
        with replacing(self._part(kind, number)) as draft:
            pq.write_table(table, draft)


def _is_draft(path: Path) -> bool:
    """Return whether this is a file of this user that `replacing` left here when its process was killed."""
    return bool(DRAFTS.fullmatch(path.name)) and path.is_file() and path.lstat().st_uid == os.geteuid()


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    with replacing(path) as draft:
        draft.write_text(json.dumps(document, ensure_ascii=False, allow_nan=False, indent=1) + "\n", encoding="utf-8")
