"""Of which model a bench is, and which of its files take part."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evodeploy.artefacts import family_of, kind_of
from evodeploy.engines.tensorrt.sidecar import read_sidecar
from evodeploy.errors import MissingExtraError, UsageError, needs
from evodeploy.files import sha256
from evodeploy.onnx_files import info_of, read_onnx
from evodeploy.specs import ModelInfo

if TYPE_CHECKING:
    from evodeploy.models.checkpoint import LoadedModel

DEFAULT_MODEL = "evo_deit_small_patch16_224"


@dataclass(frozen=True)
class Subject:
    """What is measured: the network, or why there is none; the ONNX files and plans given; what was assumed.

    `info` is None where only files are given that evodeploy did not make.
    """

    name: str
    info: ModelInfo | None
    model: LoadedModel | None
    no_model: str
    onnx: tuple[Path, ...]
    plans: tuple[Path, ...]
    notes: tuple[str, ...]


def subject_of(paths: Sequence[Path], model_name: str | None = None) -> Subject:
    """The subject of a bench over `paths`: the checkpoint, ONNX files and engines of one model.

    With an ONNX come the engines that were built from it, and the checkpoint that it was exported from, where they lie
    beside it; without a checkpoint, random weights of the same sizes, which are as fast. With no paths at all, the
    published model called `model_name` is taken so.
    """
    checkpoints = [path for path in paths if kind_of(path) == "checkpoint"]
    onnx = tuple(path for path in paths if kind_of(path) == "onnx")
    plans = tuple(path for path in paths if kind_of(path) == "engine")
    if len(checkpoints) > 1:
        raise UsageError(f"{len(checkpoints)} checkpoints given, expected one: bench them one after another")
    try:
        model, note = _model(checkpoints, onnx, plans, model_name)
    except MissingExtraError as error:
        if not paths or checkpoints:
            raise
        model, note = None, str(error)
    notes = [note] if note else []
    if onnx and not plans and model is not None:
        plans = family_of(onnx[0]).engines
        notes += [f"{path.name}, which was built from {onnx[0].name}, is taken too" for path in plans]
    name = model.config.name if model else paths[0].stem
    info = model.info if model else _told(onnx, plans)
    return Subject(name, info, model, "" if model else note, onnx, plans, tuple(notes))


def _told(onnx: tuple[Path, ...], plans: tuple[Path, ...]) -> ModelInfo | None:
    """What the first file says of its model; None where it says nothing, or nothing that reads it is installed."""
    try:
        return info_of(read_onnx(onnx[0])) if onnx else read_sidecar(plans[0]).model if plans else None
    except MissingExtraError:
        return None


def _model(
    checkpoints: list[Path], onnx: tuple[Path, ...], plans: tuple[Path, ...], name: str | None
) -> tuple[LoadedModel | None, str]:
    with needs("export"):
        from evodeploy.models.checkpoint import load_checkpoint, load_checkpoint_like, random_model
        from evodeploy.models.untrained import selection_note
        from evodeploy.models.zoo import ZOO, named, with_selection

    if name is not None:
        named(name)  # refused even where the files say what they are
    info = _told(onnx, plans)
    if checkpoints:
        if info is not None and info.source_sha256 == sha256(checkpoints[0]):
            return load_checkpoint_like(checkpoints[0], info, name), ""
        model = load_checkpoint(checkpoints[0], model=name)
        return model, selection_note(model) or ""
    if info is not None:
        source = family_of(onnx[0]).checkpoint if onnx else None
        if source is not None:
            model = load_checkpoint_like(source, info)
            return model, f"{source.name}, which {onnx[0].name} was exported from, is taken for the PyTorch rows"
        name = name or info.model
        if name not in ZOO:
            return None, f"the checkpoint of {info.model} is not given and not beside its export"
        config = dataclasses.replace(named(name), image_size=info.image_size)
        model = random_model(with_selection(config, info.keep_ratios, info.selection, info.stages or None))
        return model, "no checkpoint is given: the rows that need one run on random weights, which are as fast"
    if name is None and (onnx or plans):
        return None, f"{(onnx or plans)[0].name} does not say what model it is: name it with --model"
    return random_model(named(name or DEFAULT_MODEL)), f"{name or DEFAULT_MODEL} with random weights, which are as fast"
