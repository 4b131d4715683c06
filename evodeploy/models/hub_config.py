"""What hubs keep in JSON beside a checkpoint: heads, epsilons, class names, and how images were prepared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evodeploy.errors import BadFileError
from evodeploy.models.layout import Hints
from evodeploy.models.preprocessing import stated_by_hugging_face, stated_by_timm

_CHECKPOINTS = ("model.safetensors", "pytorch_model.bin")  # the names that a hub's config.json speaks of
_LIMIT = 10_000_000  # bytes; 21 000 class names take one
_TIMM_KIND = "architecture"


def hints_beside(checkpoint: Path) -> Hints:
    """What `config.json` and `preprocessor_config.json` in the folder of a hub's `checkpoint` say.

    Empty for a file of another name, whose neighbours may belong to another model. Raises BadFileError where the
    config names an activation that the network does not compute.
    """
    if checkpoint.name not in _CHECKPOINTS:
        return Hints()
    config = _read(checkpoint.with_name("config.json"))
    if _TIMM_KIND in config:
        return _timm(config)
    activation = config.get("hidden_act", "gelu")
    if activation != "gelu":
        raise BadFileError(f"{checkpoint} has the activation '{activation}', expected 'gelu', the exact one")
    heads, eps, labels = config.get("num_attention_heads"), config.get("layer_norm_eps"), config.get("id2label")
    return Hints(
        num_heads=heads if isinstance(heads, int) and heads > 0 else None,
        norm_eps=eps if isinstance(eps, float) and 0 < eps < 1 else None,
        class_names=_labels(labels) if isinstance(labels, dict) else (),
        stated=(stated_by_hugging_face(_read(checkpoint.with_name("preprocessor_config.json"))),),
    )


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file() or path.stat().st_size > _LIMIT:
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadFileError(f"{path} is not readable JSON: {error}") from error
    return values if isinstance(values, dict) else {}


def _labels(labels: dict[str, Any]) -> tuple[str, ...]:
    names = [labels.get(str(index)) for index in range(len(labels))]
    return tuple(map(str, names)) if None not in names else ()


def _timm(config: dict[str, Any]) -> Hints:
    source, names = config.get("pretrained_cfg"), config.get("label_names")
    return Hints(
        model=str(config[_TIMM_KIND]),
        class_names=tuple(map(str, names)) if isinstance(names, list) else (),
        stated=(stated_by_timm(source if isinstance(source, dict) else config),),
    )
