"""The files of the pipeline: which of them decide what a file computes, and which belong together."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass
from pathlib import Path

from evodeploy.engines.deploy_file import artefact_of
from evodeploy.engines.tensorrt.sidecar import read_sidecar, sidecar_path
from evodeploy.errors import BadFileError, UsageError
from evodeploy.files import sha256
from evodeploy.kinds import ARTEFACTS, is_deploy_file, suffix_of
from evodeploy.onnx_files import external_data, info_of, onnx_sha256, read_onnx

Fingerprint = tuple[tuple[str, str], ...]


def fingerprint(path: Path) -> Fingerprint:
    """Return the files that decide what `path` computes, itself first, each as its name and its SHA-256.

    Names are relative to the folder of `path`. A file that would count but does not exist has an empty checksum.
    Raises UsageError if `path` itself does not exist.
    """
    if is_deploy_file(path):
        artefact = artefact_of(path)
        below = artefact.parent.relative_to(path.parent)
        return (path.name, sha256(path)), *((str(below / name), digest) for name, digest in fingerprint(artefact))
    kind = ARTEFACTS.get(suffix_of(path), "checkpoint")  # a checkpoint may have any name
    if kind == "engine":
        others: tuple[str, ...] = (sidecar_path(path).name,)
    elif kind == "onnx":
        others = external_data(path)
    else:
        from evodeploy.models.hub_config import hub_files

        others = hub_files(path)
    there = {name: path.parent / name for name in others}
    return (
        (path.name, sha256(path)),
        *((name, sha256(place) if place.exists() else "") for name, place in there.items()),
    )


def identity(path: Path) -> str:
    """Return one SHA-256 of all contents that decide what `path` computes, to resume work. File names do not count.

    If no other file counts, it is the SHA-256 of the file itself. Raises the same errors as `fingerprint`.
    """
    own, *others = (digest for _, digest in fingerprint(path))
    return hashlib.sha256(repr([own, *others]).encode()).hexdigest() if others else own


@dataclass(frozen=True)
class Family:
    """One export and its files: the ONNX file, the checkpoint it came from if that was found, and its engines."""

    onnx: Path
    checkpoint: Path | None
    engines: tuple[Path, ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files, in the order of the pipeline."""
        return (*([self.checkpoint] if self.checkpoint else []), self.onnx, *self.engines)


def newest_export(folder: Path) -> Path | None:
    """Return the ONNX file in `folder` that was written last, or None if there is no ONNX file.

    Raises BadFileError if it cannot be read. Raises UsageError if evodeploy did not make it, or if the folder holds
    exports of several checkpoints.
    """
    there = [path for path in _ending(folder, ".onnx") if path.is_file()]
    if not there:
        return None
    newest, *others = sorted(there, key=lambda path: path.stat().st_mtime_ns, reverse=True)
    try:
        sources = {newest: _source(newest)}
    except BadFileError as error:
        raise BadFileError(f"the newest ONNX file here cannot be used: {error}; name the file to use") from error
    for path in others:
        with contextlib.suppress(BadFileError):
            sources[path] = _source(path)
    if sources[newest] is None:
        raise UsageError(f"the newest ONNX file here, {newest}, was not exported by evodeploy: name the file to use")
    ours = {path: source for path, source in sources.items() if source is not None}
    if len(set(ours.values())) > 1:
        names = ", ".join(str(path) for path in ours)
        raise UsageError(f"the ONNX files here come from {len(set(ours.values()))} checkpoints: name one of {names}")
    return newest


def _source(onnx: Path) -> tuple[str, str] | None:
    """Return the model and the checkpoint checksum from which `onnx` was exported; None if it is not evodeploy's."""
    info = info_of(read_onnx(onnx))
    return None if info is None else (info.model, info.source_sha256)


def family_of(onnx: Path) -> Family:
    """Return the files next to `onnx` that belong to it: its source by checksum, its engines by their records."""
    info = info_of(read_onnx(onnx))
    source = onnx.with_name(Path(info.source).name) if info and info.source else None
    if source is not None and not (source.is_file() and info and sha256(source) == info.source_sha256):
        source = None
    checksum = onnx_sha256(onnx)
    engines = [path for path in sorted(_ending(onnx.parent, ".engine")) if _built_from(path, checksum)]
    return Family(onnx, source, tuple(engines))


def _ending(folder: Path, suffix: str) -> list[Path]:
    return [path for path in folder.iterdir() if suffix_of(path) == suffix]


def _built_from(plan: Path, checksum: str) -> bool:
    try:
        return read_sidecar(plan).source_sha256 == checksum
    except (BadFileError, UsageError):
        return False
