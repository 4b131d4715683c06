"""Rebuilding a trained network from a checkpoint or a module."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

from torch import nn

from evodeploy.errors import BadFileError, UsageError
from evodeploy.files import sha256
from evodeploy.models.adopted import check_same, name_of, raw_from, raw_from_network
from evodeploy.models.checkpoint_file import RawCheckpoint, read_checkpoint
from evodeploy.models.class_names import fitting, read_class_names
from evodeploy.models.heads import assumption
from evodeploy.models.layouts import at_image_size, fitted, layout_of, shapes_of
from evodeploy.models.loaded import LoadedModel, model_info, with_interface
from evodeploy.models.network import Network
from evodeploy.models.preprocessing import Stated, completed, resolved
from evodeploy.models.zoo import ModelConfig, dense_twin, named, with_selection
from evodeploy.spec_rules import read_model_info
from evodeploy.specs import FastPath, ModelInfo, Preprocessing, Selection

_log = logging.getLogger(__name__)


def load_checkpoint(
    source: Path | nn.Module,
    *,
    model: str | None = None,
    ema: bool = False,
    keep_ratios: tuple[float, ...] | None = None,
    selection: Selection | None = None,
    stages: tuple[int, ...] | None = None,
    fast_path: FastPath | None = None,
    image_size: int | None = None,
    stated: Stated | None = None,
    class_names: Path | None = None,
    preprocessing: Preprocessing | None = None,
) -> LoadedModel:
    """Rebuild the network that `source` was trained as: a file, or a module of timm, transformers or this package.

    All tensors must fit. Sizes come from the tensors, or from the published `model` if it is given. Keep ratios,
    selection mode and the blocks at which stages begin come from the arguments, else from the training run's `args`,
    else from the published model. A network that was not trained with selection keeps every token unless `keep_ratios`
    ask for fewer. It never learnt to do without tokens, so the others are then merged into the kept ones, unless
    another `fast_path` is given. For another `image_size` than it was trained at, the position embeddings are
    interpolated. `stated` and the file `class_names` override the preprocessing and the class names of the source.
    If `preprocessing` is given, it is used unchanged. If the number of attention heads is assumed, a warning is logged.

    Raises BadFileError if `source` is not a checkpoint of a known family, UsageError if it does not fit the arguments,
    or if a module computes something else than the network rebuilt from its tensors.
    """
    raw = read_checkpoint(source, ema) if isinstance(source, Path) else _adopted(source, ema)
    name = source if isinstance(source, Path) else name_of(source)
    layout = layout_of(raw.state, name)
    state = layout.canonical(raw.state)
    inferred = layout.infer(shapes_of(state), raw.hints)
    config = inferred if model is None else _as_named(model, inferred)
    if not isinstance(config, layout.config):
        raise UsageError(f"{name} is of the family {layout.family}, but {config.name} is of another: leave out --model")
    if isinstance(source, nn.Module) and not isinstance(source, Network):
        check_same(source, fitted(layout, dense_twin(inferred), state, name), inferred.image_size)
    hints = raw.hints
    config = with_selection(config, None if keep_ratios else hints.keep_ratios, hints.selection, hints.stages)
    selects = layout.selects if hints.keep_ratios is None else min(hints.keep_ratios) < 1
    untrained: FastPath | None = "merge" if not selects and "fast_path" in config.settings else None
    config = with_selection(config, keep_ratios, selection, stages, fast_path or hints.fast_path or untrained)
    trained_at = None
    if image_size is not None and image_size != config.image_size:
        trained_at = config.image_size
        config, state = at_image_size(layout, config, state, image_size)
    if isinstance(source, Path) and (guess := assumption(config, hints, selects=layout.selects)):
        _log.warning("%s: %s", name, guess)  # for a module, check_same detects it
    module = fitted(layout, config, state, name)
    if inferred.heads != config.heads:
        raise UsageError(
            f"{name} states {inferred.heads} attention heads, but {config.name} has {config.heads}: leave out --model"
        )
    if class_names is not None:
        names = fitting(read_class_names(class_names), config.num_classes, class_names)
    else:
        names = hints.class_names if len(hints.class_names) == config.num_classes else ()
    how = preprocessing or resolved((*([stated] if stated else []), *hints.stated))
    info = model_info(config, names, source if isinstance(source, Path) else None, how, ema)
    try:
        read_model_info(info.to_json())  # readers of the artefacts apply the same rules
    except ValueError as error:
        raise BadFileError(f"{name} cannot be deployed: {error}") from error
    return LoadedModel(module, config, info, trained_at, selects)


def _adopted(module: nn.Module, ema: bool) -> RawCheckpoint:
    if ema:
        raise UsageError("a module has no averaged weights besides its own: leave out ema")
    if isinstance(module, Network):
        return raw_from_network(module)
    return raw_from(module)


def load_checkpoint_like(source: Path | nn.Module, info: ModelInfo, model: str | None = None) -> LoadedModel:
    """Load `source` with the settings of the artefact that `info` describes: selection, image size, input and output.

    If the artefact was made from this very file, its preprocessing, its class names and its choice of averaged weights
    are used, because options may have set them. Otherwise the artefact only completes the preprocessing that the file
    does not state.
    """
    exported = isinstance(source, Path) and bool(info.source_sha256) and info.source_sha256 == sha256(source)
    loaded = load_checkpoint(
        source,
        model=model,
        ema=exported and info.ema,
        keep_ratios=info.keep_ratios,
        selection=info.selection,
        stages=info.stages or None,
        fast_path=info.fast_path,
        image_size=info.image_size,
        preprocessing=info.preprocessing if exported else None,
    )
    names = info.class_names if exported and len(info.class_names) == info.num_classes else loaded.info.class_names
    how = completed(loaded.info.preprocessing, info.preprocessing)
    if info.elastic and tuple(stage.tokens for stage in info.elastic) != loaded.config.stage_tokens:
        raise UsageError(
            f"{loaded.config.name} does not have the elastic stages of {info.model}: they are different models"
        )
    own = dataclasses.replace(loaded.info, preprocessing=how, class_names=names, elastic=info.elastic)
    return with_interface(dataclasses.replace(loaded, info=own), info.input_format, info.top_k)


def _as_named(model: str, inferred: ModelConfig) -> ModelConfig:
    """Return the published `model` with what only the file states: classes, keep ratio, pooling, epsilon."""
    config = dataclasses.replace(named(model), num_classes=inferred.num_classes)
    config = with_selection(config, inferred.keep_ratios[:1] or None)
    found = {name: inferred.settings[name] for name in ("pooling", "norm_eps") if name in inferred.settings}
    return dataclasses.replace(config, **{name: value for name, value in found.items() if name in config.settings})
