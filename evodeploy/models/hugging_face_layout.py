"""Translation of Hugging Face's names for ViT and DINOv2, as released and as its version 5 writes them, to timm's."""

from __future__ import annotations

import dataclasses
import re

import torch

from evodeploy.errors import BadFileError
from evodeploy.models import vit_layout
from evodeploy.models.evo_deit_layout import LAYOUT as EVO_DEIT
from evodeploy.models.layout import Hints, Shapes, State
from evodeploy.models.zoo import EvoDeiTConfig

_PREFIX = re.compile(r"^(?:vit|dinov2|deit|backbone)\.(?=embeddings\.|encoder\.|layers\.|layernorm\.|pooler\.)")
_LAYER = re.compile(r"(?:encoder\.layer|layers)\.(\d+)\.(.+)\.([a-z0-9]+)")
_INSIDE = {
    "layernorm_before": "norm1",
    "norm1": "norm1",
    "attention.output.dense": "attn.proj",
    "attention.o_proj": "attn.proj",
    "layer_scale1": "ls1",
    "layernorm_after": "norm2",
    "norm2": "norm2",
    "intermediate.dense": "mlp.fc1",
    "mlp.fc1": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "mlp.fc2": "mlp.fc2",
    "layer_scale2": "ls2",
}
_OUTSIDE = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "layernorm": "norm",
    "classifier": "head",
}
_QKV = re.compile(r"attention\.(?:attention\.(query|key|value)|([qkv])_proj)")
_UNUSED = re.compile(
    r"embeddings\.mask_token|pooler\.dense\.(weight|bias)"
)  # for pre-training, or not used by features


def _recognises(shapes: Shapes) -> bool:
    bare = [_PREFIX.sub("", name) for name in shapes]
    return "embeddings.patch_embeddings.projection.weight" in bare and any(map(_LAYER.fullmatch, bare))


def canonical(state: State) -> State:
    """Rename `state` as timm does, with queries, keys and values in one tensor, then apply vit_layout.canonical."""
    bare = {_PREFIX.sub("", name): tensor for name, tensor in state.items()}
    vit_layout.refuse(bare)
    renamed: State = {}
    parts: dict[str, State] = {}
    for name, tensor in bare.items():
        layer = _LAYER.fullmatch(name)
        if layer and (qkv := _QKV.fullmatch(layer[2])):
            parts.setdefault(f"{layer[1]}.{layer[3]}", {})[(qkv[1] or qkv[2])[0]] = tensor
        elif not _UNUSED.fullmatch(name):
            renamed[_renamed(name)] = tensor
    for place, three in parts.items():
        number, kind = place.split(".")
        if sorted(three) != ["k", "q", "v"] or len({tensor.shape for tensor in three.values()}) != 1:
            raise BadFileError(
                f"layer {number}'s attention has {kind} for {', '.join(sorted(three))}, expected queries, keys and "
                "values (q, k, v) of one shape"
            )
        renamed[f"blocks.{number}.attn.qkv.{kind}"] = torch.cat([three[letter] for letter in "qkv"])
    return vit_layout.canonical(renamed)


def _renamed(name: str) -> str:
    """Return timm's name for the tensor `name`, or `name` if timm has none: it is reported as unexpected later."""
    if layer := _LAYER.fullmatch(name):
        leaf = "gamma" if layer[3] == "lambda1" else layer[3]
        return f"blocks.{layer[1]}.{_INSIDE[layer[2]]}.{leaf}" if layer[2] in _INSIDE else name
    start = next((start for start in _OUTSIDE if name == start or name.startswith(f"{start}.")), "")
    return _OUTSIDE[start] + name.removeprefix(start) if start else name


def _infer_vit(shapes: Shapes, hints: Hints) -> EvoDeiTConfig:
    eps = 1e-12 if hints.norm_eps is None else hints.norm_eps
    return vit_layout.infer(shapes, dataclasses.replace(hints, norm_eps=eps))


def _recognises_vit(shapes: Shapes) -> bool:
    return _recognises(shapes) and any(".layernorm_before." in name for name in shapes)


_COMMON = dataclasses.replace(vit_layout.LAYOUT, canonical=canonical, at_grid=EVO_DEIT.at_grid)
VIT = dataclasses.replace(_COMMON, family="Hugging Face ViT", recognises=_recognises_vit, infer=_infer_vit)
DINOV2 = dataclasses.replace(_COMMON, family="Hugging Face DINOv2", recognises=_recognises)
