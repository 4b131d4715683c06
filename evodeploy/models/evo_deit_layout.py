"""Translation between the tensor names of published Evo-DeiT checkpoints and those of the network.

Published checkpoints keep query-key and value weights separately (`qks.i.qk`, `vs.i.v`), and the pieces of a block in
parallel lists. The network has one `blocks.i.attn.qkv`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from evodeploy.models.evo_deit import EvoDeiT
from evodeploy.models.heads import heads_of
from evodeploy.models.layout import Hints, Layout, Shapes, State, depth_of, grid_of, ratio_of, shape_of
from evodeploy.models.positions import resized
from evodeploy.models.zoo import ZOO, EvoDeiTConfig, default_stages

_RENAMED = {"norms": "norm1", "projs": "attn.proj"}


def _recognises(shapes: Shapes) -> bool:
    return "pos_embed" in shapes and any(name.startswith("qks.") for name in shapes)


def _infer(shapes: Shapes, hints: Hints) -> EvoDeiTConfig:
    width, _, patch, _ = shape_of(shapes, "patch_embed.proj.weight", 4)
    grid = grid_of(shapes, "pos_embed")
    depth = depth_of(shapes, "qks")
    sizes: dict[str, Any] = {
        "width": width,
        "heads": heads_of(width, hints),
        "depth": depth,
        "image_size": grid * patch,
        "patch_size": patch,
        "mlp_ratio": ratio_of(shape_of(shapes, "blocks.0.mlp.fc1.weight", 2)[0], width),
    }
    classes = shape_of(shapes, "head.weight", 2)[0] if any(name.startswith("head.") for name in shapes) else 0
    stated: dict[str, Any] = {"num_classes": classes, "pooling": hints.pooling or "mean"}
    stated["norm_eps"] = 1e-6 if hints.norm_eps is None else hints.norm_eps
    own = hints.model if hints.model not in ZOO else None  # a published name is valid for its own size only
    for published in ZOO.values():
        if isinstance(published, EvoDeiTConfig) and sizes.items() <= dataclasses.asdict(published).items():
            return dataclasses.replace(published, name=own or published.name, **stated)
    stages = default_stages(depth)
    return EvoDeiTConfig(own or "evo_deit_custom", stages=stages, keep_ratios=(0.5,) * len(stages), **sizes, **stated)


def linear(name: str, rows: int, columns: int) -> Shapes:
    """Return the shapes of the tensors of a linear layer called `name`."""
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def norm(name: str, width: int) -> Shapes:
    """Return the shapes of the tensors of a norm called `name`."""
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def embedding(config: EvoDeiTConfig) -> Shapes:
    """Return the shapes of the class token, the positions and the convolution on patches."""
    width, patch = config.width, config.patch_size
    return {
        "cls_token": (1, 1, width),
        "pos_embed": (1, config.tokens + 1, width),
        "patch_embed.proj.weight": (width, 3, patch, patch),
        "patch_embed.proj.bias": (width,),
    }


def _required(config: EvoDeiTConfig) -> Shapes:
    width, hidden, shapes = config.width, int(config.width * config.mlp_ratio), embedding(config)
    for i in range(config.depth):
        shapes |= norm(f"norms.{i}", width) | linear(f"qks.{i}.qk", 2 * width, width)
        shapes |= linear(f"vs.{i}.v", width, width) | linear(f"projs.{i}", width, width)
        shapes |= norm(f"blocks.{i}.norm2", width) | linear(f"blocks.{i}.mlp.fc1", hidden, width)
        shapes |= linear(f"blocks.{i}.mlp.fc2", width, hidden)
    head = linear("head", config.num_classes, width) if config.num_classes else {}
    return shapes | norm("norm", width) | head


def _optional(config: EvoDeiTConfig) -> Shapes:
    return norm("norm_cls", config.width) | linear("head_cls", config.num_classes, config.width)


def to_module(state: State) -> State:
    """Rename the published tensors for the network."""
    module = {}
    for name, tensor in state.items():
        parts = name.split(".")
        if parts[0] == "qks":
            kind = parts[-1]
            module[f"blocks.{parts[1]}.attn.qkv.{kind}"] = torch.cat([tensor, state[f"vs.{parts[1]}.v.{kind}"]])
        elif parts[0] in _RENAMED:
            module[f"blocks.{parts[1]}.{_RENAMED[parts[0]]}.{parts[-1]}"] = tensor
        elif parts[0] == "patch_embed":
            module[f"patch_embed.{parts[-1]}"] = tensor
        elif parts[0] != "vs":
            module[name] = tensor
    return module


def to_published(state: State) -> State:
    """Rename the network's tensors as published."""
    published = {}
    for name, tensor in state.items():
        parts = name.split(".")
        if ".attn.qkv." in name:
            third = tensor.shape[0] // 3
            published[f"qks.{parts[1]}.qk.{parts[-1]}"] = tensor[: 2 * third].clone()
            published[f"vs.{parts[1]}.v.{parts[-1]}"] = tensor[2 * third :].clone()
        elif ".attn.proj." in name:
            published[f"projs.{parts[1]}.{parts[-1]}"] = tensor
        elif ".norm1." in name:
            published[f"norms.{parts[1]}.{parts[-1]}"] = tensor
        elif parts[0] == "patch_embed":
            published[f"patch_embed.proj.{parts[-1]}"] = tensor
        else:
            published[name] = tensor
    return published


def _at_grid(state: State, grid: int) -> State:
    return state | {"pos_embed": resized(state["pos_embed"], grid)}


LAYOUT = Layout(
    "Evo-DeiT", EvoDeiTConfig, _recognises, _infer, _required, _optional, to_module, EvoDeiT, at_grid=_at_grid,
)  # fmt: skip
