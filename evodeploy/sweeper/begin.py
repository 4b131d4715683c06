"""The beginning of a sweep: the whole request is checked, and its folder owned, and resumed or cleared."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evodeploy.artefacts import identity
from evodeploy.datasets.examples import size_of
from evodeploy.datasets.labelled import labelled_images
from evodeploy.datasets.sources import dataset_of
from evodeploy.errors import UsageError, needs
from evodeploy.files import check_input, check_output, made_folder, sha256
from evodeploy.kinds import DEPLOY, DRAWING, JOURNAL, ONNX, REPORT
from evodeploy.locks import owned
from evodeploy.machine.cpu import processor_name
from evodeploy.machine.environment import package_versions
from evodeploy.machine.nvml import gpus
from evodeploy.sweeper.request import SweepRequest
from evodeploy.sweeper.state import State, read_state
from evodeploy.text import printable

RESULTS = {"sweep.json": REPORT, "front.svg": DRAWING, "chosen.onnx": ONNX, "deploy.toml": DEPLOY}
# Packages that affect the speed of a candidate.
PACKAGES = ("onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-cu12", "tensorrt-cu13")


@contextlib.contextmanager
def begun(request: SweepRequest, force: bool = False) -> Iterator[State]:
    """Own the folder of `request` until the end, and yield the known state of this sweep, or a new one with `force`.

    With `force`, the files of an earlier sweep are removed: only those listed in its state. The whole request is
    checked before anything is removed. Speeds that were measured on another machine are forgotten. Raises UsageError if
    a setting is not possible, or if other files are where the sweep's would be; BadFileError if the state is not valid.
    """
    images = _checked(request)
    state = State(request.folder / "state.json", _task(request) | images, machine=_machine())
    with made_folder(request.folder), owned(state.path):
        sources = [path for path in (request.checkpoint, request.labels, request.class_map) if path]
        check_output(state.path, True, *sources, kind=REPORT)
        known = read_state(state.path) if state.path.exists() else None
        changed = [name for name in state.task if known is not None and known.task.get(name) != state.task[name]]
        if changed and not force:
            raise UsageError(
                f"{state.path} is of another sweep ({', '.join(changed)} changed): name another folder with -o, or "
                "pass --force to start over"
            )
        for name, kind in RESULTS.items():
            check_output(request.folder / name, known is not None and name in known.files, *sources, kind=kind)
        models = request.folder / "models"
        _check_models(models, known)
        if known is not None and force:
            _clear(known, sources)
            known = None
        if known is not None:
            known.now_on(state.machine)
        with made_folder(models):
            yield known or state


def _checked(request: SweepRequest) -> dict[str, str | None]:
    """Return checksums of names, sizes and labels of the images for evaluation, and of those for calibration.

    Raises if inputs are missing, do not fit the request, or are where outputs would be.
    """
    calibration = labelled = None
    if any(candidate.precision == "int8" for candidate in request.candidates) and not (request.images or request.data):
        raise UsageError("INT8 is calibrated on images like those it will see: add --images DIR, or leave out int8")
    if request.images and not any(candidate.precision == "int8" for candidate in request.candidates):
        raise UsageError("--images calibrates INT8, which is not tried: add int8 to --precisions, or leave it out")
    if request.data is None and any((request.labels, request.class_map, request.limit)):
        raise UsageError("--labels, --class-map and --limit are for the labelled images: add --data, or leave them out")
    if request.by_stage and request.data is None:
        raise UsageError("a search by stage weighs accuracy against work: add --data DIR with labelled images")
    if request.least is not None and request.data is None:
        raise UsageError("--min-accuracy needs labelled images: add --data DIR")
    check_input(request.checkpoint, "a checkpoint")
    classes = None if request.data is None or request.labels else request.data.resolve()
    if classes in (request.folder.resolve(), request.folder.resolve().parent):
        raise UsageError(f"the output {request.folder} would be a class of {request.data}: choose another with -o")
    if request.images is not None:
        found = [(example.name, size_of(example.image)) for example in dataset_of(request.images).examples]
        calibration = hashlib.sha256(json.dumps(found).encode()).hexdigest()
    with needs("export"):
        from evodeploy.models.checkpoint import load_checkpoint
    info = load_checkpoint(request.checkpoint).info
    if request.data is not None:
        data = labelled_images(request.data, info, labels=request.labels, class_map=request.class_map)
        labelled = data.limited(request.limit).checksum()
    return {"labelled images": labelled, "calibration images": calibration}


def _task(request: SweepRequest) -> dict[str, Any]:
    """Return the facts that must be equal to reuse measurements. Candidates may be added."""
    return {
        "checkpoint": identity(request.checkpoint),
        "data": printable(str(request.data.resolve())) if request.data else None,
        "labels": sha256(request.labels) if request.labels else None,
        "class_map": sha256(request.class_map) if request.class_map else None,
        "limit": request.limit,
        "images": printable(str(request.images.resolve())) if request.images else None,
        "batch": request.batch,
        "threads": request.threads,
        "reference": str(request.candidates[0]),
        "elastic": request.elastic,
        "fast_path": request.fast_path,
    }


def _machine() -> dict[str, str]:
    """Return the facts that must be equal to reuse speeds."""
    cards = ", ".join(gpu.name for gpu in gpus())
    return {"processor": processor_name(), "GPU": cards, **package_versions(PACKAGES)}


def _check_models(models: Path, known: State | None) -> None:
    """Raise UsageError if the folder of models does not belong to this sweep."""
    if models.is_symlink() or (models.exists() and not models.is_dir()):
        raise UsageError(f"{models} is not a folder of a sweep's models: name another folder with -o")
    if models.exists() and known is None and any(models.iterdir()):
        raise UsageError(f"{models} already exists, and not from a sweep: name another folder with -o")


def _clear(state: State, sources: list[Path]) -> None:
    """Remove the files of the sweep of `state`, the journals of their evaluations, and finally the state."""
    folder = state.path.parent
    try:
        for name in state.files:
            path = folder / name
            kind = RESULTS.get(name, ONNX)
            if path.is_symlink() or not path.is_file() or not kind.is_kind_of(path):
                continue
            if not any(path.samefile(source) for source in sources):
                path.unlink()
            for journal in path.parent.glob(f"{path.name}.*.part"):
                if journal.is_file() and JOURNAL.is_kind_of(journal):
                    journal.unlink()
        with contextlib.suppress(OSError):  # it may contain files of others
            (folder / "models").rmdir()
        state.path.unlink()
    except OSError as error:
        raise UsageError(f"cannot remove the earlier sweep in {folder}: {error.strerror or error}") from error
