"""From the arguments of a distillation to networks and images."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from evodeploy.datasets.examples import spread
from evodeploy.distillation.augmentation import reason_not_to
from evodeploy.distillation.data import LEAST, MOST_EVALUATED, Listing, Pictures, held_out, listed
from evodeploy.distillation.recipe import Recipe, TrainingPrecision, kept_to_resume
from evodeploy.errors import UsageError
from evodeploy.machine.cpu import has_bf16
from evodeploy.models.checkpoint import load_checkpoint
from evodeploy.models.hub import local
from evodeploy.models.loaded import LoadedModel, reconfigured
from evodeploy.models.zoo import dense_twin, with_selection
from evodeploy.preprocess import difference
from evodeploy.specs import FastPath
from evodeploy.text import brief

_log = logging.getLogger(__name__)

KEEP = 0.5  # the default keep ratio for a network that was not trained with selection
SAMPLE = 64  # images that decide about augmentation

Source = str | os.PathLike[str] | nn.Module


def student_of(
    source: Source,
    keep_ratio: float | Sequence[float] | None,
    elastic: tuple[float, float] | None,
    stages: Sequence[int] | None,
    fast_path: FastPath | None,
    image_size: int | None,
) -> LoadedModel:
    """Load the network to train, with its keep ratios; raises UsageError if these leave nothing to train for."""
    if keep_ratio is not None and elastic is not None:
        raise UsageError("keep_ratio and elastic exclude each other: give one ratio, or a range")
    asked = (keep_ratio,) if isinstance(keep_ratio, (int, float)) else keep_ratio
    ratios = None if asked is None else tuple(map(float, asked))
    if elastic is not None:
        low, high = elastic
        ratios = (min(max(KEEP, low), high),)
    how: dict[str, Any] = {
        "stages": None if stages is None else tuple(stages),
        "fast_path": fast_path,
        "image_size": image_size,
    }
    loaded = load_checkpoint(_read(source), keep_ratios=ratios, **how)
    if ratios is None and loaded.info.dense:
        loaded = reconfigured(loaded, with_selection(loaded.config, (KEEP,)))
    if loaded.info.dense and elastic is None:
        raise UsageError("a keep ratio of 1.0 leaves the network as it is: give a lower one, or elastic")
    return loaded


def teacher_of(source: Source | None, student: LoadedModel) -> LoadedModel:
    """Return the dense twin of `student`, or the network `source`; raises UsageError if its outputs do not match."""
    if source is None:
        return reconfigured(student, dense_twin(student.config))
    teacher = load_checkpoint(_read(source), image_size=student.info.image_size)
    ours, theirs = student.config, teacher.config
    if (ours.num_classes, ours.output_width) != (theirs.num_classes, theirs.output_width):
        raise UsageError(
            f"the teacher {theirs.name} gives {teacher.info.output} of {theirs.output_width} columns, expected "
            f"{student.info.output} of {ours.output_width} as the student's"
        )
    if moved := _elsewhere(student.info.class_names, teacher.info.class_names):
        raise UsageError(
            f"the teacher has its classes in another order than the student ({brief(moved)}), and would teach wrong "
            "ones: give one with the student's order"
        )
    if unlike := difference(student.info, teacher.info):
        raise UsageError(f"teacher and student prepare images differently ({unlike}): they would not see the same")
    return teacher


def _elsewhere(ours: Sequence[str], theirs: Sequence[str]) -> str | None:
    """Return a name that both use for different classes. A name that only one has may be a synonym, and is ignored."""
    known = {*theirs}
    pairs = zip(ours, theirs, strict=False)  # one of them may have no names
    return next((name for name, other in pairs if name != other and name in known and ours.count(name) == 1), None)


def sides(
    source: Path, val: Path | None, student: LoadedModel, labels: bool, class_map: Path | None
) -> tuple[Listing, Listing]:
    """Return the images to train on, and other images to evaluate on."""
    if class_map is not None and not (labels and student.info.num_classes):
        raise UsageError("--class-map matches labels with a classifier's classes: add --labels, or leave it out")
    train = listed(source, student.info, labels, class_map=class_map)
    if val is None:
        train, held = held_out(train)
    else:
        if len(train) < LEAST:
            raise UsageError(f"{source} has {len(train)} images, expected {LEAST} or more: add images")
        held = listed(val, student.info, labels, train.classes, class_map)
        known = {*train.classes, *student.info.class_names, *range(student.info.num_classes)}
        if labels and train.classes and class_map is None and (strange := sorted(map(str, {*held.classes} - known))):
            raise UsageError(f"{val} has classes that {source} lacks, such as {brief(strange[0])}: rename them")
        if {example.place for example in train.examples} & {example.place for example in held.examples}:
            raise UsageError(f"{val} and {source} share images: images used for training cannot measure accuracy")
    limited = held.limited(MOST_EVALUATED)
    _log.info(
        "%d images to train on, %d to evaluate on (%s)%s",
        len(train),
        len(limited),
        "every fifth, not trained on" if val is None else str(val),
        "" if len(limited) == len(held) else f", evenly spread over {len(held)}",
    )
    return train, limited


def augments(asked: bool | None, pictures: Pictures) -> bool:
    """Return, and log, whether images are augmented: as asked, or by default if they are suitable."""
    chosen = spread(range(len(pictures)), SAMPLE)
    reason = reason_not_to(len(pictures), next(pictures.in_turn([chosen])))
    if asked is None:
        _log.info("augmentation: %s", f"off, because {reason}" if reason else "crops, mirroring, light and contrast")
        return reason is None
    if asked and reason:
        _log.warning("images are augmented as asked, although %s", reason)
    return asked


def usual_precision(device: torch.device) -> TrainingPrecision:
    """Return the default precision of a training's products on `device`."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if torch.backends.cpu.get_cpu_capability() == "AVX512" and has_bf16() else "fp32"


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Limit PyTorch to `count` CPU threads while the body runs; None does not change the number."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def checksum(model: LoadedModel) -> str:
    """Return the SHA-256 of the file that `model` was read from, or else of its tensors."""
    if model.info.source_sha256:
        return model.info.source_sha256
    digest = hashlib.sha256()
    for name, tensor in sorted(model.module.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def task_of(
    student: LoadedModel, teacher: LoadedModel, recipe: Recipe, train: Listing, held: Listing
) -> dict[str, Any]:
    """Return everything that must be the same to resume an interrupted training."""
    return {
        "student": _identity(student),
        "teacher": _identity(teacher),
        "model": student.info.to_json(),
        "pictures": train.checksum(),
        "held out": held.checksum(),
        **kept_to_resume(recipe.to_dict()),
    }


def _identity(model: LoadedModel) -> str:
    """Identify what `model` computes: by its weights, and by its settings, some of which other files may state."""
    return f"{checksum(model)} {model.config}"


def files_of(*sources: Source | None) -> list[Path]:
    """Return those of `sources` that are files."""
    return [Path(each) for each in sources if isinstance(each, (str, os.PathLike)) and Path(each).exists()]


def _read(source: Source) -> Path | nn.Module:
    return source if isinstance(source, nn.Module) else local(source)
