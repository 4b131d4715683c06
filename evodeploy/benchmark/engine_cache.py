"""Engines that a bench built, kept for the next one: an engine is built again where anything that shapes it differs.

An entry is `KEY.engine` and its record, where KEY is the SHA-256 of all that shapes the engine. So entries of another
TensorRT, GPU or evodeploy are never read; they go when the folder passes its limit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from evodeploy import __version__
from evodeploy.builder.engine import build_engine
from evodeploy.builder.request import BuildRequest
from evodeploy.engines.tensorrt.flavour import Flavour, load_flavour
from evodeploy.engines.tensorrt.sidecar import PlanRecord, check_intact, read_sidecar, sidecar_path
from evodeploy.errors import BadFileError, UsageError
from evodeploy.files import replacing
from evodeploy.locks import locked
from evodeploy.machine.driver import architecture, driver_problem, gpu_name
from evodeploy.onnx_files import onnx_sha256

_log = logging.getLogger(__name__)

LIMIT = 10_000_000_000  # bytes of a folder

_ENTRY = re.compile(r"\.?([0-9a-f]{64})\.engine.*")  # also what a killed build left of one


def usual_folder() -> Path:
    """Where engines are kept: `evodeploy/engines` in the user's cache. Raises UsageError where there is none."""
    stated = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        caches = stated if stated.is_absolute() else Path.home() / ".cache"
    except RuntimeError as error:
        raise UsageError("no folder is known for the engine cache (no home): name one with --engine-cache") from error
    return caches / "evodeploy" / "engines"


def cached_build(request: BuildRequest, folder: Path, limit: int = LIMIT) -> PlanRecord:
    """Write what `request` asks for as `build_engine` does, from `folder` where such an engine was built before.

    What is built is kept there; a damaged entry is built again. Processes may share the folder: one builds, those that
    want the same engine wait for it. Raises as `build_engine` does, and UsageError where the folder cannot be used.
    """
    flavour = load_flavour(request.runtime)
    kept = folder / f"{key_of(request, flavour, _gpu())}.engine"
    with _alone_with(kept):
        record = _intact(kept)
        if record is None:
            record = build_engine(dataclasses.replace(request, output=kept))
        else:
            _log.info(f"taking the {record.precision.upper()} engine of {request.onnx.name} from {folder}")
            with contextlib.suppress(OSError):  # another user's
                os.utime(kept)
        for source, copy in zip(_files(kept), _files(request.output), strict=True):
            with replacing(copy) as draft:
                shutil.copyfile(source, draft)
    _shrink(folder, limit)
    return record


def key_of(request: BuildRequest, flavour: Flavour, gpu: str) -> str:
    """The SHA-256 of all that shapes the engine of `request`, built with `flavour` for the GPU so called."""
    facts = {
        "onnx": onnx_sha256(request.onnx),
        "precision": request.precision,
        "keep_fp32": request.keep_fp32,
        "profiles": request.profiles,
        "targets": request.targets,
        "options": {name: str(value) for name, value in request.options.chosen.items()},
        "tensorrt": str(flavour),
        "gpu": gpu,
        "evodeploy": __version__,
        "tf32": os.environ.get("NVIDIA_TF32_OVERRIDE"),  # 0 keeps TF32 out of what NVIDIA's libraries build
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _gpu() -> str:
    """The GPU here, by architecture and name; empty without one."""
    return f"{architecture()} {gpu_name()}" if driver_problem() is None else ""


def _files(plan: Path) -> tuple[Path, Path]:
    return plan, sidecar_path(plan)


def _intact(plan: Path) -> PlanRecord | None:
    """The record of a complete entry; None where it is missing or damaged."""
    try:
        record = read_sidecar(plan)
        check_intact(plan, record)
    except (BadFileError, UsageError):
        return None
    return record


@contextlib.contextmanager
def _alone_with(plan: Path) -> Iterator[None]:
    """Alone with an entry among processes; the folder is made where it is missing, for this user alone."""
    with contextlib.ExitStack() as held:
        try:
            plan.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            held.enter_context(locked(_lock(plan), wait=True))
        except OSError as error:
            reason = error.strerror or error
            raise UsageError(
                f"cannot use the engine cache {plan.parent}: {reason}; name another with --engine-cache"
            ) from error
        yield


def _lock(plan: Path) -> Path:
    return plan.with_name(f".{plan.stem}.lock")


def _shrink(folder: Path, limit: int) -> None:
    """Remove the entries that were not used for longest, until those left are within `limit` bytes together.

    One that another process works with stays, and counts. What was taken from an entry does not need it any more.
    """
    entries: dict[Path, list[Path]] = defaultdict(list)
    for path in folder.iterdir():
        if match := _ENTRY.fullmatch(path.name):
            entries[folder / f"{match[1]}.engine"].append(path)
    sizes = {plan: sum(found.st_size for found in _stats(paths)) for plan, paths in entries.items()}
    total = sum(sizes.values())
    for plan in sorted(entries, key=lambda plan: max((found.st_mtime for found in _stats(entries[plan])), default=0.0)):
        if total <= limit:
            return
        with contextlib.suppress(OSError), locked(_lock(plan)):
            for path in entries[plan]:
                path.unlink(missing_ok=True)
            total -= sizes[plan]


def _stats(paths: list[Path]) -> Iterator[os.stat_result]:
    """Facts of the files that are still there: another process may remove some at any time."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            yield path.stat()
