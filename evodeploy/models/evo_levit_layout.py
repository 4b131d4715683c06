"""Translation between the tensor names of published Evo-LeViT checkpoints and those of the network.

Published checkpoints hold every block twice: as `blocks.*`, and as `stage_blocks.*`, in which the blocks of a selecting
stage are one entry. Only `canonical` and `to_published` deal with both; all other code here uses `blocks.*` alone.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import Any

import torch

from evodeploy.errors import BadFileError, UsageError
from evodeploy.models.evo_levit import EvoLeViT
from evodeploy.models.evo_levit_config import ALWAYS_DENSE, EVO_LEVIT, STEM_STRIDE, EvoLeViTConfig, selecting_stages
from evodeploy.models.layout import Hints, Layout, Shapes, State, grid_of, shape_of

_HEADS = {
    "head": "head.label",
    "head_dist": "head.distilled",
    "head_cls": "head_cls.label",
    "head_cls_dist": "head_cls.distilled",
}
_TRAINING_ONLY = re.compile(r"head_cls|.*num_batches_tracked$")
_PUBLISHED = {"fc1": "0", "fc2": "2", "proj": "proj.1", "query": "q.1", "conv": "c", "linear": "c", "pos_embed": "poss"}


@dataclasses.dataclass(frozen=True)
class _Place:
    """The prefixes of the tensor names of one attention or MLP, in each of the three namings."""

    own: str
    block: str
    stage_block: str


def _places(depths: tuple[int, ...]) -> list[_Place]:
    """Return the prefixes of every attention and MLP in a network with `depths` blocks in its stages, in order."""
    places: list[_Place] = []
    listed = staged = done = 0  # so far: entries of `blocks`, entries of `stage_blocks`, and blocks
    for stage, depth in enumerate(depths):
        if stage > 0:
            own = f"stages.{stage}.subsample"
            places.append(_Place(f"{own}.attn.", f"blocks.{listed}.", f"stage_blocks.{staged}."))
            places.append(_Place(f"{own}.mlp.", f"blocks.{listed + 1}.m.", f"stage_blocks.{staged + 1}.m."))
            listed, staged = listed + 2, staged + 2
        unit = 0
        for block in range(depth):
            for part, name in enumerate(("attn", "mlp")):
                own = f"stages.{stage}.blocks.{block}.{name}."
                if done < ALWAYS_DENSE:
                    stage_block, staged = f"stage_blocks.{staged}.m.", staged + 1
                else:
                    stage_block, unit = f"stage_blocks.{staged}.m.{unit}.m.", unit + 1
                places.append(_Place(own, f"blocks.{listed}.m{part + 1}.m.", stage_block))
            listed, done = listed + 1, done + 1
        staged += unit > 0
    return places


def _depths(names: Shapes | State, root: str) -> tuple[int, ...]:
    """Count the blocks in each stage by the attentions named under `root`, which is `blocks` or `stage_blocks`."""
    pattern = re.compile(rf"{root}\.(\d+)(?:\.m\.(\d+))?(?:\.m1)?(?:\.m)?\.(q?kv)\.c\.weight")
    found = sorted((int(m[1]), int(m[2] or 0), m[3]) for name in names if (m := pattern.fullmatch(name)))
    depths = [0]
    for *_, kind in found:
        if kind == "kv":
            depths.append(0)
        else:
            depths[-1] += 1
    return tuple(depths)


def canonical(state: State) -> State:
    """Return `state` with one name per tensor; raises BadFileError if the values under two names differ."""
    root = "blocks" if any(name.startswith("blocks.") for name in state) else "stage_blocks"
    starts = {place.stage_block: place.block for place in _places(_depths(state, root))}
    kept = {name: tensor for name, tensor in state.items() if not name.startswith("stage_blocks.")}
    for name, tensor in state.items():
        start = max((start for start in starts if name.startswith(start)), key=len, default=None)
        if start is None:
            kept[name] = tensor
            continue
        first = starts[start] + name.removeprefix(start)
        other = kept.setdefault(first, tensor)
        if other.shape != tensor.shape or not torch.allclose(other, tensor, rtol=0, atol=0, equal_nan=True):
            raise BadFileError(
                f"the checkpoint's '{first}' and '{name}' are one tensor under two names, but their values differ: "
                "save it again from the network that was trained"
            )
    return kept


def _recognises(shapes: Shapes) -> bool:
    return "poss" in shapes and "patch_embed.0.c.weight" in shapes


def _infer(shapes: Shapes, hints: Hints) -> EvoLeViTConfig:
    grid = grid_of(shapes, "poss")
    depths = _depths(shapes, "blocks")
    if 0 in depths:
        raise BadFileError(f"the checkpoint's stages hold {depths} blocks, expected at least one in each")
    starts = {place.own: place.block for place in _places(depths)}
    qkv = [
        shape_of(shapes, f"{starts[f'stages.{stage}.blocks.0.attn.']}qkv.c.weight", 2) for stage in range(len(depths))
    ]
    widths, keys = tuple(width for _, width in qkv), tuple(rows // 4 for rows, _ in qkv)
    heads = hints.num_heads if isinstance(hints.num_heads, tuple) else ()
    fits = [
        config
        for config in EVO_LEVIT.values()
        if (config.widths, config.depths) == (widths, depths)
        and keys == tuple(count * config.key_width for count in config.heads)
        and heads in ((), config.heads)
    ]
    sizes: dict[str, Any] = {"image_size": grid * STEM_STRIDE, "num_classes": shape_of(shapes, "head.l.weight", 2)[0]}
    own = hints.model if hints.model not in EVO_LEVIT else None  # a published name goes with its size alone
    for published in fits:
        if published.image_size == sizes["image_size"]:
            return dataclasses.replace(published, name=own or published.name, **sizes)
    if fits:
        return dataclasses.replace(fits[0], name=own or "evo_levit_custom", **sizes)
    key_width = keys[0] // heads[0] if heads else 0
    if keys != tuple(count * key_width for count in heads):
        raise UsageError(
            f"cannot infer the heads of an Evo-LeViT of widths {widths} from the tensors: expected one number "
            "for each stage as 'num_heads' in the checkpoint's args"
        )
    ratios = (0.5,) * len(selecting_stages(depths))
    return EvoLeViTConfig(own or "evo_levit_custom", widths, heads, depths, key_width, keep_ratios=ratios, **sizes)


@functools.cache
def _names(depths: tuple[int, ...]) -> dict[str, str]:
    """Map each tensor name of a network with `depths` blocks in its stages to the published name under `blocks`."""
    stages, ratios = len(depths), (1.0,) * len(selecting_stages(depths))
    smallest = EvoLeViTConfig("names", (8,) * stages, (1,) * stages, depths, key_width=8, keep_ratios=ratios)
    starts = {place.own: place.block for place in _places(depths)}
    starts |= {f"{own}.": f"{published}." for published, own in _HEADS.items()}
    published = {}
    for own in _state(smallest):
        start = next((start for start in starts if own.startswith(start)), "")
        tokens = [_PUBLISHED.get(token, token) for token in own.removeprefix(start).split(".")]
        if own.startswith("head"):
            tokens = ["l" if token == "c" else token for token in tokens]
        published[own] = starts.get(start, "") + ".".join(tokens)
    return published


def _state(config: EvoLeViTConfig) -> State:
    """Return the state dict of the network of `config`, with the training-only heads, on the meta device."""
    with torch.device("meta"):
        state = EvoLeViT(config).state_dict()
    return state | {f"head_cls.{name[5:]}": tensor for name, tensor in state.items() if name.startswith("head.")}


def _shapes(config: EvoLeViTConfig) -> Shapes:
    names = _names(config.depths)
    return {names[own]: tuple(tensor.shape) for own, tensor in _state(config).items()}


def _required(config: EvoLeViTConfig) -> Shapes:
    return {name: shape for name, shape in _shapes(config).items() if not _TRAINING_ONLY.match(name)}


def _optional(config: EvoLeViTConfig) -> Shapes:
    return {name: shape for name, shape in _shapes(config).items() if _TRAINING_ONLY.match(name)}


def to_module(state: State) -> State:
    """Rename the published tensors for the network. Missing batch counts, which inference never reads, become zero."""
    own = {published: own for own, published in _names(_depths(state, "blocks")).items()}
    module = {own[name]: tensor for name, tensor in state.items()}
    for name in list(module):
        if name.endswith("running_var"):
            module.setdefault(name.replace("running_var", "num_batches_tracked"), torch.tensor(0))
    return module


def to_published(state: State) -> State:
    """Rename the network's tensors as published; a tensor with two published names appears under both."""
    stages = [int(name.split(".")[1]) for name in state if name.endswith(".attn.qkv.linear.weight")]
    depths = tuple(stages.count(stage) for stage in sorted(set(stages)))
    names = _names(depths)
    published = {names[own]: tensor for own, tensor in state.items()}
    for place in _places(depths):
        for own, tensor in state.items():
            if own.startswith(place.own):
                published[place.stage_block + names[own].removeprefix(place.block)] = tensor
    return published


LAYOUT = Layout("Evo-LeViT", EvoLeViTConfig, _recognises, _infer, _required, _optional, to_module, EvoLeViT, canonical)
