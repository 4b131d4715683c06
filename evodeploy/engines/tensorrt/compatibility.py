"""Checks that a plan can run here, before TensorRT loads it: its own errors are cryptic, and it may crash."""

from __future__ import annotations

import hashlib
import importlib
import re
from collections.abc import Iterable
from pathlib import Path

from evodeploy.engines.tensorrt.flavour import Flavour, load_flavour
from evodeploy.engines.tensorrt.sidecar import PlanRecord
from evodeploy.errors import BadFileError, MissingExtraError, UnavailableError, UsageError
from evodeploy.specs import TensorSpec


def runtime_of(record: PlanRecord) -> Flavour:
    """Return the TensorRT that runs a plan: the flavour that built it, or the lean runtime if that is enough.

    Raises MissingExtraError if neither is installed.
    """
    try:
        return load_flavour(record.runtime)
    except MissingExtraError as error:
        if not record.version_compatible:
            raise
        try:
            return Flavour("tensorrt-lean", importlib.import_module("tensorrt_lean"))
        except Exception as lean:  # bindings without their libraries raise OSError, ImportError or others
            raise MissingExtraError(f'{error}, or pip install "evodeploy[tensorrt-lean]", which is enough') from lean


def check_whole(record: PlanRecord, path: Path) -> None:
    """Raise UsageError if the plan `path` was built without its weights."""
    if record.stripped:
        raise UsageError(
            f"{path} holds no weights: put them in with `evodeploy refit {path} {record.source} -o FULL.engine`"
        )


def check_unchanged(record: PlanRecord, path: Path, data: bytes) -> None:
    """Raise BadFileError if `data`, the content of the plan `path`, is not what was built."""
    found = hashlib.sha256(data).hexdigest()
    if found != record.plan_sha256:
        raise BadFileError(
            f"{path} is not the engine that its record describes (SHA-256 {found[:12]}…, expected "
            f"{record.plan_sha256[:12]}…): copy both files again, or build it again from {record.source}"
        )


def check_fits(record: PlanRecord, path: Path, flavour: Flavour, architecture: str) -> None:
    """Raise UnavailableError if the plan was built for another TensorRT than `flavour`, or for another GPU."""
    if not (_version_fits(record, flavour.version) and _gpu_fits(record, architecture)):
        built_for = ", ".join(record.targets) or record.architecture or "another GPU"
        raise UnavailableError(
            f"{path} was built for {built_for} with {record.runtime} {record.runtime_version}; here: {architecture} "
            f"with {flavour}: build it again with `evodeploy build-engine {record.source}`"
        )


def check_lengths(path: Path, outputs: Iterable[TensorSpec], *, elastic: bool = False) -> None:
    """Raise BadFileError if an output of `path` has a length that is known only after the computation.

    Memory for it is allocated before, and kernels would write past its end. In an `elastic` network an output may be as
    long as the number of kept tokens, which is known before.
    """
    for spec in outputs:
        unknown = spec.shape[1:].count(None)
        if unknown and not (elastic and unknown == 1 and len(spec.shape) == 2):
            shape = ", ".join(["batch", *("?" if size is None else str(size) for size in spec.shape[1:])])
            raise BadFileError(
                f"{path}: the length of output '{spec.name}' ({shape}) is not known before it is computed, and an "
                "engine needs to know it: export without that output"
            )


def _version_fits(record: PlanRecord, here: str) -> bool:
    built, found = _numbers(record.runtime_version)[:4], _numbers(here)[:4]  # further numbers belong to the packaging
    return found >= built if record.version_compatible else found == built


def _gpu_fits(record: PlanRecord, here: str) -> bool:
    if record.targets:
        return here in record.targets
    if record.hardware_compatible == "ampere-plus":
        return _numbers(here) >= (80,)
    return record.architecture in ("", here)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text))
