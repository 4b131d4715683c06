"""What a bench compares: each engine on the model and on its dense twin."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn

from evodeploy.artefacts import family_of, kind_of
from evodeploy.engines.base import Engine
from evodeploy.engines.registry import open_engine
from evodeploy.engines.tensorrt.sidecar import read_sidecar
from evodeploy.errors import MissingExtraError, UnavailableError, UsageError, needs
from evodeploy.files import sha256
from evodeploy.onnx_files import info_of, read_onnx
from evodeploy.specs import EngineOptions, Precision

if TYPE_CHECKING:
    from evodeploy.models.checkpoint import LoadedModel

Role = Literal["evo", "dense"]
TORCH_ENGINES = ("torch", "torch-compile")
ONNX_ENGINES = ("onnxruntime", "openvino")
ENGINES = (*TORCH_ENGINES, *ONNX_ENGINES, "tensorrt")
DEFAULT_MODEL = "evo_deit_small_patch16_224"


@dataclass(frozen=True)
class Candidate:
    """One row to be: an engine on the model (`evo`) or on its twin that keeps every token (`dense`).

    `precision` is what is known before it is opened. `open` gives the engine, or raises UnavailableError with the
    reason why this machine has none.
    """

    engine: str
    role: Role
    precision: Precision | None
    artefact: str
    open: Callable[[], Engine]


@dataclass(frozen=True)
class Subject:
    """What is measured: the network, or why there is none; the ONNX files and plans given; what was assumed."""

    name: str
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
    return Subject(name, model, "" if model else note, onnx, plans, tuple(notes))


def _model(
    checkpoints: list[Path], onnx: tuple[Path, ...], plans: tuple[Path, ...], name: str | None
) -> tuple[LoadedModel | None, str]:
    with needs("export"):
        from evodeploy.models.checkpoint import load_checkpoint, load_checkpoint_like, random_model
        from evodeploy.models.zoo import ZOO, named, with_selection

    info = info_of(read_onnx(onnx[0])) if onnx else read_sidecar(plans[0]).model if plans else None
    if checkpoints:
        if info is not None and info.source_sha256 == sha256(checkpoints[0]):
            return load_checkpoint_like(checkpoints[0], info, name), ""
        return load_checkpoint(checkpoints[0], model=name), ""
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


@contextmanager
def candidates_of(subject: Subject, engines: Sequence[str], threads: int) -> Iterator[list[Candidate]]:
    """All rows that `engines` ask for, in their order, the model's before the twin's.

    ONNX files that are wanted and were not given are exported into a folder that lives as long as this context.
    """
    unknown = [name for name in engines if name not in ENGINES]
    if unknown:
        raise UsageError(f"no engine is called '{unknown[0]}': expected some of {', '.join(ENGINES)}")
    with tempfile.TemporaryDirectory(prefix="evodeploy-bench-") as folder:
        rows = list(_rows(subject, "evo", subject.model, subject.onnx, engines, threads, Path(folder)))
        twin = _twin(subject.model)
        if twin is not None or subject.model is None:
            rows += _rows(subject, "dense", twin, (), engines, threads, Path(folder))
        yield rows


def _twin(model: LoadedModel | None) -> LoadedModel | None:
    """The dense twin, or None where the model is dense itself or there is none."""
    if model is None or model.info.dense:
        return None
    from evodeploy.models.checkpoint import reconfigured
    from evodeploy.models.zoo import dense_twin

    return reconfigured(model, dense_twin(model.config))


def _rows(
    subject: Subject,
    role: Role,
    model: LoadedModel | None,
    onnx: tuple[Path, ...],
    engines: Sequence[str],
    threads: int,
    folder: Path,
) -> Iterator[Candidate]:
    if model is not None and not onnx and set(engines) & set(ONNX_ENGINES):
        onnx = (_exported(model, folder / f"{role}.onnx"),)
    for name in engines:
        if name in TORCH_ENGINES:
            yield Candidate(name, role, "fp32", "", partial(_torch_engine, name, model, subject, threads))
        elif name in ONNX_ENGINES:
            for path in onnx:
                yield _file_candidate(name, role, path, None, threads)
            if not onnx:
                yield Candidate(name, role, None, "", partial(_refuse, subject.no_model))
        elif role == "evo":
            for path in subject.plans:
                yield _file_candidate(name, role, path, read_sidecar(path).precision, threads)
            if not subject.plans:
                reason = "no engine is given or lies beside the ONNX it was built from: see `evodeploy build-engine`"
                yield Candidate(name, role, None, "", partial(_refuse, reason))


def _exported(model: LoadedModel, path: Path) -> Path:
    with needs("export"):
        from evodeploy.export.to_onnx import onnx_from_model
        from evodeploy.onnx_files import write_onnx

    write_onnx(onnx_from_model(model), path)
    return path


def _torch_engine(name: str, model: LoadedModel | None, subject: Subject, threads: int) -> Engine:
    if model is None:
        _refuse(subject.no_model)
    from evodeploy.export.deployed import torch_engine

    return torch_engine(model, compiled=name == "torch-compile", options=EngineOptions(threads))


def _file_candidate(name: str, role: Role, path: Path, precision: Precision | None, threads: int) -> Candidate:
    return Candidate(name, role, precision, path.name, partial(open_engine, path, name, EngineOptions(threads)))


def _refuse(reason: str) -> NoReturn:
    raise UnavailableError(reason)
