"""The model that a bench measures, and which of its files are used."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evodeploy.artefacts import family_of, newest_export
from evodeploy.benchmark.keep_ratios import Ratios, as_elastic, kept_by, refuse_static
from evodeploy.benchmark.row_spec import Kept, Role
from evodeploy.engines.deploy_file import DeployFile, checked_artefact, read_deploy_file
from evodeploy.engines.opener import Source, resolved, several
from evodeploy.engines.tensorrt.sidecar import read_sidecar
from evodeploy.errors import MissingExtraError, UsageError, needs
from evodeploy.files import sha256
from evodeploy.kinds import is_deploy_file, kind_of
from evodeploy.onnx_files import info_of, read_onnx
from evodeploy.specs import FastPath, ModelInfo

if TYPE_CHECKING:
    from torch import nn

    from evodeploy.models.loaded import LoadedModel

DEFAULT_MODEL = "evo_deit_small_patch16_224"

_log = logging.getLogger(__name__)

_FACTS = ("model", "image_size", "patch_size", "num_classes", "pooling")  # the same in the model and its twin
_SELECTION = ("selection", "keep_ratios", "stages", "fast_path")


@dataclass(frozen=True)
class Subject:
    """The subject of a bench: its network, or why there is none; the files given, those of its twin; assumptions.

    `info` is None if only files without evodeploy's metadata are given. `random` says that the network's weights are
    random because no source of them is given. `keeps` are the settings for elastic artefacts. A `twinless` subject
    needs no twin: it keeps every token in one of these settings, or the ratios were given explicitly and nothing else
    is measured.
    """

    name: str
    info: ModelInfo | None
    model: LoadedModel | None
    no_model: str
    onnx: tuple[Path, ...]
    plans: tuple[Path, ...]
    notes: tuple[str, ...]
    twin_onnx: tuple[Path, ...] = ()
    twin_plans: tuple[Path, ...] = ()
    random: bool = False
    keeps: tuple[Kept, ...] = ()
    twinless: bool = False


def sources_of(artefacts: Source | Sequence[Source] | None, model_name: str | None = None) -> list[Path | nn.Module]:
    """Return one or several artefacts as paths and modules. Names on the hub are fetched.

    Without artefacts these are the files of the newest export in the current folder. The list is empty if a model is
    named or there is no export.
    """
    given = [] if artefacts is None else several(artefacts)
    if given:
        return [resolved(source) for source in given]
    onnx = None if model_name else newest_export(Path())
    if onnx is None:
        return []
    paths = family_of(onnx).paths
    _log.info(f"using {', '.join(map(str, paths))}, the newest export in this folder")
    return list(paths)


def without_deploy_files(sources: Sequence[Path | nn.Module]) -> tuple[list[Path | nn.Module], list[DeployFile]]:
    """Return `sources` with deploy files replaced by their artefacts, and the contents of the deploy files.

    Raises BadFileError if an artefact is not the one that its file was written for.
    """
    stated = {path: read_deploy_file(path) for path in sources if isinstance(path, Path) and is_deploy_file(path)}
    taken = [
        checked_artefact(source, stated[source]) if isinstance(source, Path) and source in stated else source
        for source in sources
    ]
    return taken, list(stated.values())


def subject_of(
    sources: Sequence[Path | nn.Module],
    model_name: str | None = None,
    keeps: Ratios | None = None,
    stated_keeps: Ratios = (),
    fast_path: FastPath | None = None,
) -> Subject:
    """Return the subject of a bench over `sources`: checkpoint, ONNX files and engines of one model and its dense twin.

    With an ONNX file come the engines built from it and the checkpoint it was exported from, if they lie next to it.
    Without a checkpoint it gets random weights of the same sizes, which are as fast; without any sources, so does the
    published model `model_name`. A module is treated like a checkpoint. Elastic artefacts, and a checkpoint without
    files, are run at the ratios `keeps`; by default at `stated_keeps` from deploy files, or their own, and at 1.0.
    `fast_path` is the treatment of tokens that a checkpoint or random weights do not keep. Raises UsageError for a file
    of another model, and for a `fast_path` with files, which state theirs, or if every token is kept; also the errors
    in `benchmark.keep_ratios`.
    """
    paths = [source for source in sources if isinstance(source, Path) and kind_of(source) != "checkpoint"]
    checkpoints = [source for source in sources if source not in paths]
    if len(checkpoints) > 1:
        raise UsageError(f"{len(checkpoints)} checkpoints given, expected one: bench them one after another")
    if fast_path is not None and paths:
        raise UsageError(f"{paths[0]} was exported with a fast path of its own: leave out --fast-path")
    facts = {path: _facts(path) for path in paths}
    describing = _of_the_model(facts)
    try:
        model, note = _model(checkpoints, facts, describing, model_name, fast_path)
    except MissingExtraError as error:
        if not facts or checkpoints:
            raise
        model, note = None, str(error)
    notes = [note] if note else []
    if model is not None and all(kind_of(path) == "onnx" for path in facts):
        for source in tuple(facts):
            built = family_of(source).engines
            notes += [f"{path.name}, which was built from {source.name}, is used too" for path in built]
            facts |= {path: _facts(path) for path in built}
    model = as_elastic(model, facts, keeps)
    if fast_path is not None and model is not None and model.info.dense:
        raise UsageError(
            f"{model.config.name} keeps every token, so --fast-path changes nothing: add --keep, such as 0.7"
        )
    stated = facts[describing] if describing else None
    info = model.info if model else stated
    compared = info if checkpoints else stated  # random weights may have other classes
    roles = {path: role_of(path, its, compared) for path, its in facts.items()}
    kept = kept_by(info, facts, keeps, stated_keeps)
    refuse_static(facts, roles, kept, keeps)

    def given(kind: str, role: Role) -> tuple[Path, ...]:
        return tuple(path for path in facts if kind_of(path) == kind and roles[path] == role)

    return Subject(
        model.config.name if model else (describing or paths[0]).stem,
        info,
        model,
        "" if model else note,
        given("onnx", "evo"),
        given("engine", "evo"),
        tuple(notes),
        given("onnx", "dense"),
        given("engine", "dense"),
        random=model is not None and not checkpoints and not model.info.source_sha256,
        keeps=kept,
        twinless=keeps is not None or any(each.dense for each in kept),
    )


def role_of(path: Path, info: ModelInfo | None, subject: ModelInfo | None) -> Role:
    """Return whether the file `path` with metadata `info` belongs to the model or to its dense twin.

    It is the twin's if it keeps every token and the model does not. A file without metadata belongs to the model.
    Raises UsageError, with the fact that differs, for a file of another model or another selection.

    An elastic file is the model's. Which of its rows are the twin's depends on what each keeps.
    """
    if info is None or subject is None:
        return "evo"
    twin = info.dense and not subject.dense
    for name in _FACTS if twin else (*_FACTS, *_SELECTION):
        found, expected = getattr(info, name), getattr(subject, name)
        if found != expected:
            raise UsageError(
                f"{path} is of another model: its {name.replace('_', ' ')} is {found}, expected {expected} as in "
                f"{subject.model}: bench them one after another"
            )
    return "dense" if twin else "evo"


def _facts(path: Path) -> ModelInfo | None:
    """Return the metadata of a file about its model; None if it has none, or no installed package can read it."""
    if kind_of(path) == "engine":
        return read_sidecar(path).model
    try:
        return info_of(read_onnx(path))
    except MissingExtraError:
        return None


def _of_the_model(facts: dict[Path, ModelInfo | None]) -> Path | None:
    """Return the file that describes the model: an elastic one, else one that selects, ONNX first, else a dense one."""
    known = [(path, info) for path, info in facts.items() if info]
    known.sort(key=lambda one: (not one[1].elastic, one[1].dense, kind_of(one[0]) == "engine"))
    return known[0][0] if known else None


def _model(
    checkpoints: list[Path | nn.Module],
    facts: dict[Path, ModelInfo | None],
    describing: Path | None,
    name: str | None,
    fast_path: FastPath | None,
) -> tuple[LoadedModel | None, str]:
    with needs("export"):
        from evodeploy.models.checkpoint import load_checkpoint_like
        from evodeploy.models.random_weights import random_model
        from evodeploy.models.zoo import ZOO, named, with_selection

    if name is not None:
        named(name)  # raises for an unknown name, even if the files name the model
    if checkpoints:
        return _of_checkpoint(checkpoints[0], facts, name, fast_path)
    info = facts[describing] if describing else None
    if info is not None:
        onnx = next((path for path in facts if kind_of(path) == "onnx"), None)
        source = family_of(onnx).checkpoint if onnx else None
        if onnx is not None and source is not None:
            model = load_checkpoint_like(source, info)
            return model, f"{source.name}, which {onnx.name} was exported from, is used for the PyTorch rows"
        name = name or info.model
        if name not in ZOO:
            cure = "give it, or name the published model of its size with --model"
            return None, f"the checkpoint of {info.model} was not given and is not next to its export: {cure}"
        config = dataclasses.replace(named(name), image_size=info.image_size)
        selecting = with_selection(config, info.keep_ratios, info.selection, info.stages or None, info.fast_path)
        model = random_model(selecting)
        return model, "no checkpoint is given: the rows that need one run on random weights, which are as fast"
    if name is None and facts:
        return None, f"{next(iter(facts)).name} does not say what model it is: name it with --model"
    config = with_selection(named(name or DEFAULT_MODEL), fast_path=fast_path)
    return random_model(config), f"{name or DEFAULT_MODEL} with random weights, which are as fast"


def _of_checkpoint(
    source: Path | nn.Module, facts: dict[Path, ModelInfo | None], name: str | None, fast_path: FastPath | None
) -> tuple[LoadedModel, str]:
    """Load the checkpoint with the settings of the files made from it. Dense files say nothing about the selection."""
    from evodeploy.models.checkpoint import load_checkpoint, load_checkpoint_like
    from evodeploy.models.untrained import selection_note

    checksum = sha256(source) if isinstance(source, Path) else None
    own = [info for info in facts.values() if info and info.source_sha256 == checksum]
    selecting = [info for info in own if not info.dense]
    if not selecting:
        model = load_checkpoint(source, model=name, ema=any(info.ema for info in own), fast_path=fast_path)
        if not (own and model.info.dense):
            return model, selection_note(model) or ""
    return load_checkpoint_like(source, (selecting or own)[0], name), ""
