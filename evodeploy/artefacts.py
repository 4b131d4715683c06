"""The pipeline's files: what decides what each computes, and which belong together."""

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
    """The files that decide what `path` computes, itself first: their names in its folder, and the SHA-256 of each.

    That of a file that would count and is not there is empty. Raises UsageError where `path` itself is not there.
    """
    if is_deploy_file(path):
        artefact = artefact_of(path)
        below = artefact.parent.relative_to(path.parent)
        return (path.name, sha256(path)), *((str(below / name), digest) for name, digest in fingerprint(artefact))
    kind = ARTEFACTS.get(suffix_of(path), "checkpoint")  # which may have any name
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
    """One SHA-256 of all contents that decide what `path` computes, for what is resumed: names do not count.

    It is that of the file where no other counts. Raises as `fingerprint` does.
    """
    own, *others = (digest for _, digest in fingerprint(path))
    return hashlib.sha256(repr([own, *others]).encode()).hexdigest() if others else own


@dataclass(frozen=True)
class Family:
    """One export and what belongs to it: the ONNX, the checkpoint it came from where that is found, its engines."""

    onnx: Path
    checkpoint: Path | None
    engines: tuple[Path, ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files, in the pipeline's order."""
        return (*([self.checkpoint] if self.checkpoint else []), self.onnx, *self.engines)


def newest_export(folder: Path) -> Path | None:
    """Return the ONNX file in `folder` that was written last; None where there is no ONNX file.

    Raises BadFileError where it cannot be read, UsageError where evodeploy did not make it, or where the folder holds
    exports of several checkpoints.
    """
    there = [path for path in _ending(folder, ".onnx") if path.is_file()]
    if not there:
        return None
    newest, *others = sorted(there, key=lambda path: path.stat().st_mtime_ns, reverse=True)
    try:
        sources = {newest: _source(newest)}
    except BadFileError as error:
        raise BadFileError(f"the newest ONNX file here cannot be taken: {error}; name the file to take") from error
    for path in others:
        with contextlib.suppress(BadFileError):
            sources[path] = _source(path)
    if sources[newest] is None:
        raise UsageError(f"the newest ONNX file here, {newest}, is not an export of evodeploy's: name the file to take")
    ours = {path: source for path, source in sources.items() if source is not None}
    if len(set(ours.values())) > 1:
        names = ", ".join(str(path) for path in ours)
        raise UsageError(f"the ONNX files here come from {len(set(ours.values()))} checkpoints: name one of {names}")
    return newest


def _source(onnx: Path) -> tuple[str, str] | None:
    """The model and the checkpoint's checksum that `onnx` was exported from; None where evodeploy did not make it."""
    info = info_of(read_onnx(onnx))
    return None if info is None else (info.model, info.source_sha256)


def family_of(onnx: Path) -> Family:
    """The files in the folder of `onnx` that belong to it: its source by checksum, its engines by their records."""
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
