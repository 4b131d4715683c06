"""Networks with their weights: rebuilt from a checkpoint, random, run otherwise, and saved in the published form."""

from __future__ import annotations

import argparse
import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from evodeploy.errors import BadFileError, InputError, UsageError
from evodeploy.files import replacing, sha256
from evodeploy.hub import origin
from evodeploy.models.adopted import check_same, name_of, raw_from, raw_from_network
from evodeploy.models.checkpoint_file import RawCheckpoint, read_checkpoint
from evodeploy.models.class_names import fitting, imagenet_names, read_class_names
from evodeploy.models.layouts import at_image_size, fitted, layout_for, layout_of, shapes_of
from evodeploy.models.network import Network
from evodeploy.models.preprocessing import Stated, completed, resolved, settings_of
from evodeploy.models.zoo import ZOO, EvoDeiTConfig, ModelConfig, dense_twin, named, with_selection
from evodeploy.spec_rules import read_model_info
from evodeploy.specs import ElasticStage, FastPath, InputFormat, ModelInfo, Preprocessing, Selection
from evodeploy.text import brief

LARGEST_TOP_K = 3840  # TensorRT's limit
FEWEST_TOKENS = 4  # that an elastic stage selects from
# Gains of Evo-LeViT's random batch norms, by the ends of their names. Small ones after a branch keep the residuals from
# growing; smaller ones at queries and keys keep attention from amplifying what float32 rounds.
_GAINS = {
    (".proj.1.bn.weight", ".m.2.bn.weight"): 0.5,
    (".qkv.bn.weight", ".kv.bn.weight", ".q.1.bn.weight"): 0.75,
}


@dataclass(frozen=True)
class LoadedModel:
    """A network with its weights, in evaluation mode, and the facts that travel with it.

    `trained_at` is the image size of the source, where that was interpolated to another. `trained_to_select` says
    whether the weights were trained with token selection: without it, every token that is dropped costs accuracy.
    """

    module: Network
    config: ModelConfig
    info: ModelInfo
    trained_at: int | None = None
    trained_to_select: bool = True


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
    """Rebuild the network that `source` was trained as, strictly: a file, or a module of timm, transformers or ours.

    Sizes come from the tensors, or from the published `model` where named; keep ratios, selection mode and the blocks
    that begin a stage from the arguments, else from the training run's own `args`, else as published. A network that
    was not trained with selection keeps every token unless `keep_ratios` ask for less; the others are then merged into
    those, unless another `fast_path` is asked for: it never learnt to do without them. With another `image_size` than
    it was trained at, the position embeddings are interpolated. What is `stated` of the preprocessing comes before what
    the source says of it, and so do the names in the file `class_names`. With `preprocessing` no source is asked.

    Raises BadFileError for what is no checkpoint of a known family, UsageError for what does not fit the arguments, and
    for a module that computes something else than the network rebuilt from its tensors.
    """
    raw = read_checkpoint(source, ema) if isinstance(source, Path) else _adopted(source, ema)
    name = source if isinstance(source, Path) else name_of(source)
    layout = layout_of(raw.state, name)
    state = layout.canonical(raw.state)
    inferred = layout.infer(shapes_of(state), raw.hints)
    config = inferred if model is None else _as_named(model, inferred)
    if not isinstance(config, layout.config):
        raise UsageError(f"{name} is an {layout.family} checkpoint, but {config.name} is none: leave out --model")
    if isinstance(source, nn.Module) and not isinstance(source, Network):
        check_same(source, fitted(layout, dense_twin(inferred), state, name), inferred.image_size)
    hints = raw.hints
    config = with_selection(config, None if keep_ratios else hints.keep_ratios, hints.selection, hints.stages)
    selects = layout.selects if hints.keep_ratios is None else min(hints.keep_ratios) < 1
    untrained: FastPath | None = "merge" if not selects and isinstance(config, EvoDeiTConfig) else None
    config = with_selection(config, keep_ratios, selection, stages, fast_path or hints.fast_path or untrained)
    trained_at = None
    if image_size is not None and image_size != config.image_size:
        trained_at = config.image_size
        config, state = at_image_size(layout, config, state, image_size)
    module = fitted(layout, config, state, name)
    if class_names is not None:
        names = fitting(read_class_names(class_names), config.num_classes, class_names)
    else:
        names = hints.class_names if len(hints.class_names) == config.num_classes else ()
    how = preprocessing or resolved((*([stated] if stated else []), *hints.stated))
    info = model_info(config, names, source if isinstance(source, Path) else None, how)
    try:
        read_model_info(info.to_json())  # what a file says of itself, as its artefacts' readers will take it
    except ValueError as error:
        raise BadFileError(f"{name} cannot be deployed: {error}") from error
    return LoadedModel(module, config, info, trained_at, selects)


def _adopted(module: nn.Module, ema: bool) -> RawCheckpoint:
    if ema:
        raise UsageError("a module has no averaged weights next to its own: leave out ema")
    if isinstance(module, Network):
        return raw_from_network(module, layout_for(module.config).to_published)
    return raw_from(module)


def load_checkpoint_like(source: Path | nn.Module, info: ModelInfo, model: str | None = None) -> LoadedModel:
    """`source` run as the artefact that `info` describes: its selection, image size, form of input and of output.

    The preprocessing and the class names of an artefact that was made from this very file are taken from it, since
    options may have stated them. Otherwise that is only what the file does not say of the preprocessing.
    """
    exported = isinstance(source, Path) and bool(info.source_sha256) and info.source_sha256 == sha256(source)
    loaded = load_checkpoint(
        source,
        model=model,
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
        raise UsageError(f"{loaded.config.name} has not the elastic stages of {info.model}: they are not of one model")
    own = dataclasses.replace(loaded.info, preprocessing=how, class_names=names, elastic=info.elastic)
    return with_interface(dataclasses.replace(loaded, info=own), info.input_format, info.top_k)


def with_interface(model: LoadedModel, input_format: InputFormat, top_k: int | None) -> LoadedModel:
    """`model` deployed with images taken as `input_format` says, and its `top_k` classes given; see `ModelInfo`.

    Raises UsageError for a number of classes that the model, or an engine built from its export, cannot give.
    """
    classes = model.info.num_classes
    if top_k is not None and not classes:
        raise UsageError(f"{model.info.model} has no classifier, so there are no classes to take the top {top_k} of")
    if top_k is not None and not 1 <= top_k <= min(classes, LARGEST_TOP_K):
        raise UsageError(
            f"the top {top_k} of {classes} classes cannot be given: expected 1 to {min(classes, LARGEST_TOP_K)}"
        )
    info = dataclasses.replace(model.info, input_format=input_format, top_k=top_k)
    return dataclasses.replace(model, info=info)


def with_elastic(model: LoadedModel, bounds: tuple[float, float]) -> LoadedModel:
    """`model` deployed so that each run says how many tokens its stages keep, within `bounds`, shares from (0, 1].

    The least is one token. Raises UsageError for bounds that leave out the model's own keep ratios, and for a network
    that has no stage, or one with too few tokens, to select.
    """
    low, high = bounds
    if not 0 < low <= high <= 1:
        raise UsageError(f"elastic bounds are {low:g} to {high:g}, expected LOW:HIGH with 0 < LOW <= HIGH <= 1")
    config = model.config
    if not config.stage_tokens or min(config.stage_tokens) < FEWEST_TOKENS:
        found = f"a stage has {min(config.stage_tokens)}" if config.stage_tokens else "it has no stage"
        raise UsageError(
            f"{config.name} cannot be elastic: expected stages that select from {FEWEST_TOKENS} tokens or more, {found}"
        )
    stages = tuple(ElasticStage(n, max(1, int(low * n)), int(high * n)) for n in config.stage_tokens)
    info = dataclasses.replace(model.info, elastic=stages)
    try:
        info.keep_of()
    except InputError as error:
        raise UsageError(
            f"the model's own keep ratios are outside of elastic's bounds ({error}): add --keep-ratio"
        ) from error
    return dataclasses.replace(model, info=info)


def _as_named(model: str, inferred: ModelConfig) -> ModelConfig:
    """The published `model` with what only the file can tell: its classes, its pooling, its epsilon."""
    config = dataclasses.replace(named(model), num_classes=inferred.num_classes)
    config = with_selection(config, inferred.keep_ratios[:1] or None)
    if isinstance(config, EvoDeiTConfig) and isinstance(inferred, EvoDeiTConfig):
        return dataclasses.replace(config, pooling=inferred.pooling, norm_eps=inferred.norm_eps)
    return config


def model_info(
    config: ModelConfig,
    class_names: tuple[str, ...] = (),
    source: Path | None = None,
    preprocessing: Preprocessing | None = None,
) -> ModelInfo:
    """The facts of `config` that travel with every artefact made from it.

    A published model's 1000 classes are ImageNet's where the checkpoint names none.
    """
    plain = config if isinstance(config, EvoDeiTConfig) else None
    if not class_names and config.name in ZOO and config.num_classes == len(imagenet_names()):
        class_names = imagenet_names()
    return ModelInfo(
        model=config.name,
        image_size=config.image_size,
        patch_size=config.patch_size,
        num_classes=config.num_classes,
        selection=config.selection,
        keep_ratios=config.keep_ratios,
        preprocessing=preprocessing or Preprocessing(),
        class_names=class_names,
        source=brief(origin(source) or source.name) if source else "",
        source_sha256=sha256(source) if source else "",
        pooling=plain.pooling if plain else "mean",
        stages=plain.stages if plain else (),
        fast_path=plain.fast_path if plain else "rest",
    )


def random_model(config: ModelConfig, seed: int = 0) -> LoadedModel:
    """A network of random weights, scaled so that its attention is far from uniform and selections are decided."""
    layout = layout_for(config)
    generator = torch.Generator().manual_seed(seed)
    state = {name: _random(name, shape, generator) for name, shape in layout.required(config).items()}
    module = layout.network(config)
    module.load_state_dict(layout.to_module(state))
    return LoadedModel(module.eval().requires_grad_(False), config, model_info(config))


def _random(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    leaf = name.rsplit(".", 1)[-1]
    noise: Tensor = torch.randn(shape, generator=generator)
    if leaf == "weight" and len(shape) > 1:
        return noise * float(1.5 / math.prod(shape[1:]) ** 0.5)
    if leaf == "weight":
        gain = next((gain for ends, gain in _GAINS.items() if name.endswith(ends)), 1.0)
        return gain * (1 + 0.1 * noise)
    if leaf == "running_var":
        return 1 + 0.5 * noise.abs()
    return 0.5 * noise if leaf in ("cls_token", "pos_embed", "poss", "learn_tradeoff") else 0.1 * noise


def reconfigured(model: LoadedModel, config: ModelConfig) -> LoadedModel:
    """The same weights run as `config` says, not elastic: other keep ratios, another selection mode, the dense twin."""
    module = layout_for(config).network(config)
    module.load_state_dict(model.module.state_dict())
    now = model_info(config)
    info = dataclasses.replace(
        model.info,
        keep_ratios=now.keep_ratios,
        selection=now.selection,
        stages=now.stages,
        fast_path=now.fast_path,
        elastic=(),
    )
    return dataclasses.replace(model, module=module.eval().requires_grad_(False), config=config, info=info)


def save_checkpoint(
    model: LoadedModel,
    path: Path,
    epoch: int = 0,
    *,
    elastic: tuple[float, float] | None = None,
    distillation: dict[str, Any] | None = None,
) -> None:
    """Write `model` as training would have: published names, with an `args` namespace that names the variant.

    `elastic` are the lowest and the highest keep ratio that it was trained for, `distillation` how that was done.
    """
    config = model.config
    args = argparse.Namespace(
        model=config.name,
        input_size=config.image_size,
        num_heads=config.heads,
        selection=config.selection,
        keep_ratio=list(config.keep_ratios),
        class_names=list(model.info.class_names),
        **settings_of(model.info.preprocessing),
    )
    if isinstance(config, EvoDeiTConfig):
        args.stages, args.pooling, args.norm_eps = list(config.stages), config.pooling, config.norm_eps
        args.fast_path = config.fast_path
    if elastic is not None:
        args.elastic = list(elastic)
    content = {"model": layout_for(config).to_published(model.module.state_dict()), "epoch": epoch, "args": args}
    if distillation is not None:
        content["distillation"] = distillation
    with replacing(path) as draft, draft.open("wb", buffering=0) as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # how its writer ends where a file takes no more
            if isinstance(error.__context__, OSError):
                raise OSError(error.__context__.errno, error.__context__.strerror) from error
            raise
