"""A network with its weights, and the settings that it is deployed with."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from evodeploy.elastic import ElasticStage
from evodeploy.errors import InputError, UsageError
from evodeploy.files import sha256
from evodeploy.models.class_names import imagenet_names
from evodeploy.models.hub import origin
from evodeploy.models.layouts import layout_for
from evodeploy.models.network import Network
from evodeploy.models.zoo import ZOO, ModelConfig
from evodeploy.specs import InputFormat, ModelInfo, Preprocessing
from evodeploy.text import brief

LARGEST_TOP_K = 3840  # TensorRT's limit
FEWEST_TOKENS = 4  # an elastic stage selects from no fewer
ANY_SHARE = (1e-6, 1.0)  # elastic bounds that allow any number of tokens, from one to all


@dataclass(frozen=True)
class LoadedModel:
    """A network with its weights, in evaluation mode, and its metadata.

    `trained_at` is the image size of the source if its positions were interpolated to another size, else None.
    `trained_to_select` is true if the weights were trained with token selection; otherwise every dropped token costs
    accuracy.
    """

    module: Network
    config: ModelConfig
    info: ModelInfo
    trained_at: int | None = None
    trained_to_select: bool = True


def model_info(
    config: ModelConfig,
    class_names: tuple[str, ...] = (),
    source: Path | None = None,
    preprocessing: Preprocessing | None = None,
    ema: bool = False,
) -> ModelInfo:
    """Return the metadata that every artefact made from `config` contains.

    `ema` records that the weights are the averaged ones of `source`. A published model with 1000 classes gets
    ImageNet's class names if there are no `class_names`.
    """
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
        ema=ema,
        **{name: value for name, value in config.settings.items() if name != "norm_eps"},
    )


def with_interface(model: LoadedModel, input_format: InputFormat, top_k: int | None) -> LoadedModel:
    """Return `model` set to take images in `input_format` and to return its `top_k` classes; see `ModelInfo`.

    Raises UsageError if the model, or an engine built from its export, cannot return that many classes.
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
    """Return `model` as elastic: each run sets how many tokens the stages keep, within `bounds`, shares in (0, 1].

    A stage keeps at least one token. Raises UsageError if the bounds exclude the model's own keep ratios, or if the
    network has no selecting stage or one with too few tokens.
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


def reconfigured(model: LoadedModel, config: ModelConfig) -> LoadedModel:
    """Return the same weights as a static model of `config`: other keep ratios, another mode, or the dense twin."""
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
