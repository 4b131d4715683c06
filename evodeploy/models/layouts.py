"""The supported families of checkpoints: recognising the family of a state dict, and building its network."""

from __future__ import annotations

import dataclasses
from typing import Any

from evodeploy.errors import BadFileError, UsageError
from evodeploy.models import evo_deit_layout, evo_levit_layout, hugging_face_layout, vit_layout
from evodeploy.models.evo_levit_config import EvoLeViTConfig
from evodeploy.models.layout import Layout, Shapes, State
from evodeploy.models.network import Network
from evodeploy.models.zoo import EvoDeiTConfig, ModelConfig
from evodeploy.text import brief

LAYOUTS: tuple[Layout[Any], ...] = (
    evo_deit_layout.LAYOUT,
    evo_levit_layout.LAYOUT,
    vit_layout.LAYOUT,
    hugging_face_layout.VIT,
    hugging_face_layout.DINOV2,
)

_PUBLISHED = {EvoDeiTConfig: evo_deit_layout.to_published, EvoLeViTConfig: evo_levit_layout.to_published}


def layout_of(state: State, source: object) -> Layout[Any]:
    """Return the layout of the family that `state` belongs to; raises BadFileError if there is none."""
    shapes = shapes_of(state)
    for layout in LAYOUTS:
        if layout.recognises(shapes):
            return layout
    *first, last = [layout.family for layout in LAYOUTS]
    families = f"{', '.join(first)} or {last}"
    some = brief(", ".join(list(state)[:4])) or "none"
    raise BadFileError(f"{source} is not an {families} checkpoint: its {len(state)} tensors are named {some}, …")


def layout_for(config: ModelConfig) -> Layout[Any]:
    """Return the layout of the family that `config` belongs to."""
    return next(layout for layout in LAYOUTS if isinstance(config, layout.config))


def to_published(config: ModelConfig, state: State) -> State:
    """Return `state`, of the network of `config`, under the names of its family's published checkpoints."""
    return _PUBLISHED[type(config)](state)


def shapes_of(state: State) -> Shapes:
    """Return the shape of each tensor."""
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def at_image_size(layout: Layout[Any], config: Any, state: State, image_size: int) -> tuple[Any, State]:
    """Return `config` and `state` for images of another size; raises UsageError if the family's size is fixed."""
    if layout.at_grid is None:
        raise UsageError(f"{config.name} runs at {config.image_size} px only: leave out --image-size")
    resized = dataclasses.replace(config, image_size=image_size)
    return resized, layout.at_grid(state, resized.grid)


def fitted(layout: Layout[Any], config: ModelConfig, state: State, source: object) -> Network:
    """Return the network of `config` with the weights in `state`; raises BadFileError if they do not fit."""
    required, optional, found = layout.required(config), layout.optional(config), shapes_of(state)
    problems = {
        "missing": [name for name in required if name not in found],
        "unexpected": [name for name in found if name not in required | optional],
        "of another shape": [
            f"{name} {found[name]} instead of {shape}"
            for name, shape in (required | optional).items()
            if name in found and found[name] != shape
        ],
        "not finite": [name for name in required if name in found and not bool(state[name].isfinite().all())],
    }
    parts = [f"{len(names)} {kind} ({_some(names)})" for kind, names in problems.items() if names]
    if parts:
        raise BadFileError(f"{source} does not fit {config.name}: tensors {'; '.join(parts)}")
    module = layout.network(config)
    module.load_state_dict(layout.to_module({name: state[name] for name in required}))
    return module.eval().requires_grad_(False)


def _some(names: list[str]) -> str:
    limit = 8
    return brief(", ".join(names[:limit]), 600) + (f", and {len(names) - limit} more" if len(names) > limit else "")
