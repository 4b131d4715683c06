"""What hubs keep in JSON beside a checkpoint: heads, epsilons, class names, and how images were prepared."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from evodeploy.errors import BadFileError
from evodeploy.models.layout import Hints
from evodeploy.specs import Interpolation, Preprocessing

_CHECKPOINTS = ("model.safetensors", "pytorch_model.bin")  # the names that a hub's config.json speaks of
_LIMIT = 10_000_000  # bytes; 21 000 class names take one
_RESAMPLE: dict[int, Interpolation] = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers
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
        preprocessing=_hugging_face(_read(checkpoint.with_name("preprocessor_config.json"))),
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
    source = config.get("pretrained_cfg")
    values = source if isinstance(source, dict) else config
    mean, std, crop = _triple(values.get("mean")), _triple(values.get("std")), values.get("crop_pct")
    names = config.get("label_names")
    preprocessing = None
    if mean and std:
        share = crop if isinstance(crop, (int, float)) and 0 < crop <= 1 else Preprocessing().crop_pct
        # "random" among the rest is taken as bicubic
        interpolation: Interpolation = "bilinear" if values.get("interpolation") == "bilinear" else "bicubic"
        preprocessing = Preprocessing(mean, std, interpolation, share)
    return Hints(
        model=str(config[_TIMM_KIND]),
        class_names=tuple(map(str, names)) if isinstance(names, list) else (),
        preprocessing=preprocessing,
    )


def _hugging_face(values: dict[str, Any]) -> Preprocessing | None:
    mean, std = _triple(values.get("image_mean")), _triple(values.get("image_std"))
    if not mean or not std:
        return None
    size, crop = values.get("size"), values.get("crop_size")
    short = size.get("shortest_edge") if isinstance(size, dict) else None
    side = crop.get("height") if isinstance(crop, dict) else None
    both = isinstance(short, int) and isinstance(side, int) and 0 < side <= short
    # Without a crop, Hugging Face squeezes the image into a square; here the centre is cropped instead.
    share = side / short if both and short and side else 1.0
    return Preprocessing(mean, std, _RESAMPLE.get(values.get("resample", 3), "bicubic"), share, rounding="hugging-face")


def _triple(values: Any) -> tuple[float, ...]:
    """Three finite numbers, or none."""
    fits = isinstance(values, list) and len(values) == 3 and all(isinstance(v, (int, float)) for v in values)
    return tuple(map(float, values)) if fits and all(map(math.isfinite, values)) else ()
