"""The JSON files that hubs keep next to a checkpoint: heads, epsilons, class names, and the preprocessing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evodeploy.errors import BadFileError
from evodeploy.models.hub import CHECKPOINTS, TIMM_KEY
from evodeploy.models.layout import Hints
from evodeploy.models.preprocessing import stated_by_hugging_face, stated_by_timm
from evodeploy.schema import (
    Rule,
    SchemaError,
    document,
    mapping,
    number,
    optional,
    read_json_file,
    sequence,
    text,
    whole,
)
from evodeploy.specs import LARGEST_NAME

_DESCRIPTIONS = ("config.json", "preprocessor_config.json")
_NAME = text(LARGEST_NAME)
# A label may be a number; every other type must be text.
_LABEL = Rule(_NAME.expected, lambda value, field: _NAME(str(value) if type(value) is int else value, field))
_LISTED, _NUMBERED = sequence(_LABEL, 0, 1_000_000), mapping(_LABEL, 1_000_000)
_LABELS: Rule[Any] = Rule(
    _LISTED.expected, lambda value, field: (_NUMBERED if isinstance(value, dict) else _LISTED)(value, field)
)
_HEADS = optional(whole(1, 1024))


def _square(value: Any, field: str) -> Any:
    """Refuse two sides that differ: their position embeddings may be as many as those of a square."""
    if isinstance(value, (list, tuple)) and len(set(map(str, value))) > 1:
        raise SchemaError(field, " x ".join(map(str, value[:3])), "a square")
    return value


_IMAGE_SIZE: Rule[Any] = Rule("a side, or two that are equal", _square)
_NUMBER = optional(number(-1e30, 1e30))
_CHANNELS = optional(sequence(number(-1e30, 1e30), 0, 100))
# Only the types are checked here, because an option may replace a value that is not supported.
_TRANSFORM: dict[str, Rule[Any]] = {
    "mean": _CHANNELS,
    "std": _CHANNELS,
    "interpolation": optional(_NAME),
    "crop_pct": _NUMBER,
    "crop_mode": optional(_NAME),
    "image_mean": _CHANNELS,
    "image_std": _CHANNELS,
    "rescale_factor": _NUMBER,
}
_RULES = document(
    {},
    {
        **_TRANSFORM,
        TIMM_KEY: _NAME,
        "pretrained_cfg": optional(document({}, _TRANSFORM)),
        "global_pool": optional(_NAME),
        "model_args": optional(
            document(
                {},
                {
                    "num_heads": _HEADS,
                    "global_pool": optional(_NAME),
                    "act_layer": optional(_NAME),
                    "img_size": _IMAGE_SIZE,
                },
            )
        ),
        "label_names": optional(_LABELS),
        "hidden_act": _NAME,
        "num_attention_heads": _HEADS,
        "image_size": _IMAGE_SIZE,
        "layer_norm_eps": optional(number(0, 1, above=True)),
        "id2label": optional(_NUMBERED),
    },
)  # all other fields belong to other programs


def hints_near(checkpoint: Path) -> Hints:
    """Read the hints in `config.json` and `preprocessor_config.json` in the folder of a hub's `checkpoint`.

    They are empty if the checkpoint has another name than a hub gives it: the JSON files may then belong to another
    model. Raises BadFileError.
    """
    if checkpoint.name not in CHECKPOINTS:
        return Hints()
    config = _read(checkpoint.with_name(_DESCRIPTIONS[0]))
    processor = {} if TIMM_KEY in config else _read(checkpoint.with_name(_DESCRIPTIONS[1]))
    return _hints(config, processor)


def hints_of(config: dict[str, Any], source: str) -> Hints:
    """Return the hints in a `config` in memory, with the content of a `config.json`; `source` is what it describes."""
    try:
        return _hints(_RULES(config), {})
    except SchemaError as error:
        raise BadFileError(f"the configuration of {source}: {error}") from error


def _hints(config: dict[str, Any], processor: dict[str, Any]) -> Hints:
    if TIMM_KEY in config:
        return _timm(config)
    return Hints(
        num_heads=config.get("num_attention_heads"),
        norm_eps=config.get("layer_norm_eps"),
        class_names=_labels(config.get("id2label") or {}),
        activation=config.get("hidden_act"),
        stated=(stated_by_hugging_face(processor),),
    )


def hub_files(checkpoint: Path) -> tuple[str, ...]:
    """Return the names of the files next to `checkpoint` that `hints_near` reads if they exist."""
    return _DESCRIPTIONS if checkpoint.name in CHECKPOINTS else ()


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    values = read_json_file(path, "a hub's description of the checkpoint")
    try:
        return _RULES(values)
    except SchemaError as error:
        raise BadFileError(f"{path}: {error}") from error


def _labels(labels: dict[str, str]) -> tuple[str, ...]:
    names = tuple(labels[str(index)] for index in range(len(labels)) if str(index) in labels)
    return names if len(names) == len(labels) else ()


def _timm(config: dict[str, Any]) -> Hints:
    labels, more = config.get("label_names") or (), config.get("model_args") or {}
    return Hints(
        model=config[TIMM_KEY],
        num_heads=more.get("num_heads"),
        class_names=_labels(labels) if isinstance(labels, dict) else labels,
        global_pool=config.get("global_pool") or more.get("global_pool"),
        activation=more.get("act_layer"),
        stated=(stated_by_timm(config.get("pretrained_cfg") or config),),
    )
