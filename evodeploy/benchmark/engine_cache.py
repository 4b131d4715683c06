"""A cache of the engines that benches built. An engine is built again if any of its inputs or options differs.

An entry is `KEY.engine` and its record, where KEY is the SHA-256 of everything that determines the engine. So entries
of another TensorRT, GPU or evodeploy are never read. They are removed when the folder exceeds its limit.
"""

from __future__ import annotations

import contextlib
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

_ENTRY = re.compile(r"\.?([0-9a-f]{64})\.engine.*")  # also matches what a killed build left behind


def usual_folder() -> Path:
    """Return the default folder, `evodeploy/engines` in the user's cache. Raises UsageError if there is no home."""
    stated = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        caches = stated if stated.is_absolute() else Path.home() / ".cache"
    except RuntimeError as error:
        raise UsageError(
            "there is no folder for the engine cache, as no home folder is known: name one with --engine-cache"
        ) from error
    return caches / "evodeploy" / "engines"


def cached_build(request: BuildRequest, folder: Path, limit: int = LIMIT) -> PlanRecord:
    """Write the engine of `request` as `build_engine` does, or copy it from `folder` if it was built before.

    A new engine is kept there, and a damaged entry is built again. Processes may share the folder: one builds, and
    others that need the same engine wait for it. Raises the same errors as `build_engine`, UsageError if the folder
    cannot be used, and BadFileError if the ONNX is replaced during the build: then nothing is kept.
    """
    flavour = load_flavour(request.runtime)
    key = key_of(request, flavour, _gpu())
    kept = folder / f"{key}.engine"
    with _alone_with(kept):
        record = _intact(kept)
        if record is None:
            record = build_engine(request)
            if key_of(request, flavour, _gpu()) != key:
                raise BadFileError(
                    f"{request.onnx} was replaced while an engine was built from it: build again once it is complete"
                )
            _copy(request.output, kept)
        else:
            _log.info(f"using the {record.precision.upper()} engine of {request.onnx.name} from {folder}")
            with contextlib.suppress(OSError):  # it may belong to another user
                os.utime(kept)
            _copy(kept, request.output)
    _shrink(folder, limit)
    return record


def key_of(request: BuildRequest, flavour: Flavour, gpu: str) -> str:
    """Return the SHA-256 of everything that determines the engine of `request`, for `flavour` and the named GPU."""
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
        "tf32": os.environ.get("NVIDIA_TF32_OVERRIDE"),  # 0 disables TF32 in builds by NVIDIA's libraries
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _gpu() -> str:
    """Return the architecture and name of the GPU here, or an empty string without one."""
    return f"{architecture()} {gpu_name()}" if driver_problem() is None else ""


def _copy(plan: Path, target: Path) -> None:
    for source, copy in ((plan, target), (sidecar_path(plan), sidecar_path(target))):
        with replacing(copy) as draft:
            shutil.copyfile(source, draft)


def _intact(plan: Path) -> PlanRecord | None:
    """Return the record of a complete entry, or None if it is missing or damaged."""
    try:
        record = read_sidecar(plan)
        check_intact(plan, record)
    except (BadFileError, UsageError):
        return None
    return record


@contextlib.contextmanager
def _alone_with(plan: Path) -> Iterator[None]:
    """Lock an entry against other processes. The folder is created if it is missing, for this user only."""
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
    """Remove the least recently used entries until the rest fits into `limit` bytes.

    An entry that another process is using stays, and counts. Copies taken from an entry do not need it any more.
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
    """Yield the status of the files that still exist: another process may remove some at any time."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            yield path.stat()
