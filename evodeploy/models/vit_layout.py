"""Checkpoints of plain vision transformers with the names of timm, DeiT and DINOv2, as Evo-DeiTs that never select.

Their class tokens attend as in Evo-DeiT, so tokens can be selected without training. That costs accuracy, so every
token is kept unless the user asks for less. `canonical` folds layer scales into the layers before them, which leaves a
single naming. Checkpoints with parts that the network does not compute are refused, and the error names the part.
"""

from __future__ import annotations

import math
import re
from typing import Any

import torch
import torch.nn.functional as F

from evodeploy.errors import BadFileError
from evodeploy.models.evo_deit import EvoDeiT
from evodeploy.models.evo_deit_layout import embedding, linear, norm
from evodeploy.models.heads import heads_of
from evodeploy.models.layout import Hints, Layout, Shapes, State, depth_of, grid_of, ratio_of, shape_of
from evodeploy.models.positions import resized
from evodeploy.models.zoo import EvoDeiTConfig, default_stages
from evodeploy.text import brief

_REFUSED = {
    r"dist_token|head_dist\.|.*distillation": "a distillation token",
    r"reg_token|.*register_tokens": "register tokens",
    r".*mlp\.(w12|w3|w1|w2|fc1_g|weights_in|gate_proj)\b": "a SwiGLU MLP",
    r".*\.[qk]_norm\.": "query and key norms",
    r".*rel(ative)?_pos": "relative position embeddings",
    r".*attn\.[qv]_bias$": "a BEiT bias on queries and values alone",
    r".*rope": "rotary position embeddings",
    r"norm_pre\.": "a norm before its blocks",
    r"attn_pool\.": "attention pooling",
    r"pre_logits\.": "a representation layer before its head",
    r"patch_embed\.backbone\.": "a convolutional network before its blocks",
    r"blocks\.\d+\.\d+\.": "blocks in chunks",
    r"blocks\.\d+\.attns\.": "parallel attentions",
}
_SCALES = {
    re.compile(r"(blocks\.\d+)\.(?:ls1\.gamma|gamma_1)"): "attn.proj",
    re.compile(r"(blocks\.\d+)\.(?:ls2\.gamma|gamma_2)"): "mlp.fc2",
}
_SIZES = {192: "tiny", 384: "small", 768: "base", 1024: "large", 1280: "huge"}


def refuse(names: Shapes | State) -> None:
    """Raise BadFileError if one of `names` belongs to a part that a plain vision transformer does not have."""
    for pattern, what in _REFUSED.items():
        for name in names:
            if re.match(pattern, name):
                raise BadFileError(
                    f"the vision transformer has {what} ('{name}'), which is not supported: expected a plain ViT, "
                    "DeiT or DINOv2 with a class token and learnt positions"
                )


def canonical(state: State) -> State:
    """Return `state` with layer scales folded, and with zeros for a missing query-key-value bias or class position."""
    refuse(state)
    if "cls_token" not in state:
        raise BadFileError("the vision transformer has no class token ('cls_token'), whose attention selects tokens")
    if "pos_embed" not in state:
        raise BadFileError("the vision transformer has no learnt positions ('pos_embed'), which Evo-DeiT adds")
    scaled = _scaled_layers(state)
    kept = {name: tensor for name, tensor in state.items() if name not in scaled}
    for name, layer in scaled.items():
        _fold(kept, layer, name, state[name])
    if not any(name.endswith(".attn.qkv.bias") for name in kept):  # a single missing one is reported later
        weights = [name for name in kept if name.endswith(".attn.qkv.weight")]
        kept |= {name.replace("weight", "bias"): torch.zeros(kept[name].shape[:1]) for name in weights}
    positions = kept["pos_embed"]
    if positions.ndim == 3 and math.isqrt(positions.shape[1]) ** 2 == positions.shape[1] > 1:
        kept["pos_embed"] = F.pad(positions, (0, 0, 1, 0))  # DeiT III adds positions to the patch tokens only
    return kept


def _scaled_layers(state: State) -> dict[str, str]:
    """Map the name of each layer scale to that of its layer. Raises BadFileError if not every layer has its scale."""
    matches = ((scale.fullmatch(name), layer) for name in state for scale, layer in _SCALES.items())
    scaled = {match[0]: f"{match[1]}.{layer}" for match, layer in matches if match}
    blocks = {match[0] for name in state if (match := re.match(r"blocks\.\d+(?=\.)", name))}
    layers = [f"{block}.{layer}" for block in blocks for layer in _SCALES.values()]
    if scaled and sorted(scaled.values()) != sorted(layers):
        raise BadFileError(
            f"the checkpoint has {len(scaled)} layer scales in {len(blocks)} blocks, expected two in each or none"
        )
    return scaled


def _fold(state: State, layer: str, name: str, gamma: torch.Tensor) -> None:
    """Scale the rows of `layer` in `state` by `gamma`: γ ⊙ (W x + b) = (γ ⊙ W) x + γ ⊙ b."""
    for kind in ("weight", "bias"):
        tensor = state.get(f"{layer}.{kind}")
        if tensor is None:
            continue  # a missing weight is reported later
        if gamma.shape != tensor.shape[:1]:
            raise BadFileError(f"'{name}' is {tuple(gamma.shape)}, expected one scale for each row of '{layer}'")
        state[f"{layer}.{kind}"] = tensor * gamma.reshape(-1, *[1] * (tensor.ndim - 1))


def _check_stated(hints: Hints, pooled_norm: bool) -> None:
    """Raise BadFileError if the hints state something that the network does not compute and no tensor shows."""
    if hints.model and re.search(r"(?:^|_)rope(?:_|$)", hints.model):
        raise BadFileError(
            f"the vision transformer has rotary position embeddings ('{brief(hints.model)}'), which are not supported: "
            "expected learnt positions alone"
        )
    if hints.activation and hints.activation != "gelu":
        raise BadFileError(
            f"the vision transformer has the activation '{brief(hints.activation)}', expected 'gelu', the exact one"
        )
    norm, pooling = ("fc_norm", "avg") if pooled_norm else ("norm", "token")
    if hints.global_pool and hints.global_pool != pooling:
        raise BadFileError(
            f"the vision transformer has the pooling '{brief(hints.global_pool)}' and the norm '{norm}', expected "
            f"'{pooling}' with that norm, as no other is supported"
        )


def _recognises(shapes: Shapes) -> bool:
    return any(re.match(r"blocks\.\d+\.((attns\.)?\d+\.)?attn\.(qkv|q_proj)\.weight", name) for name in shapes)


def infer(shapes: Shapes, hints: Hints) -> EvoDeiTConfig:
    """Infer the configuration from canonical tensor shapes. Raises BadFileError if it is not supported."""
    width, _, patch, _ = shape_of(shapes, "patch_embed.proj.weight", 4)
    grid = grid_of(shapes, "pos_embed")
    depth = depth_of(shapes, "blocks")
    hidden, narrowed = (
        shape_of(shapes, "blocks.0.mlp.fc1.weight", 2)[0],
        shape_of(shapes, "blocks.0.mlp.fc2.weight", 2)[1],
    )
    if hidden == 2 * narrowed:
        raise BadFileError("the vision transformer has a SwiGLU MLP ('blocks.0.mlp.fc1'), which is not supported")
    pooled_norm = "fc_norm.weight" in shapes
    _check_stated(hints, pooled_norm)
    if pooled_norm and "norm.weight" in shapes:
        raise BadFileError("the vision transformer has a norm before and after pooling ('norm' and 'fc_norm'): one, or "
                           "the other, is supported")  # fmt: skip
    classes, read = shape_of(shapes, "head.weight", 2) if "head.weight" in shapes else (0, width)
    if read == 2 * width:
        raise BadFileError(
            "the classifier reads the class token next to the patches' mean (DINOv2's linear head), which is not "
            "supported: leave its head out to export the features"
        )
    stages = default_stages(depth)
    ratio = ratio_of(hidden, width)
    sizes: dict[str, Any] = {"depth": depth, "image_size": grid * patch, "patch_size": patch, "mlp_ratio": ratio}
    return EvoDeiTConfig(
        hints.model or f"vit_{_SIZES.get(width, width)}_patch{patch}",
        width,
        heads_of(width, hints),
        num_classes=classes,
        stages=stages,
        keep_ratios=(1.0,) * len(stages),
        pooling="mean" if pooled_norm else "class",
        norm_eps=1e-6 if hints.norm_eps is None else hints.norm_eps,
        **sizes,
    )


def required(config: EvoDeiTConfig) -> Shapes:
    """Return the canonical names and shapes of the tensors that `config` needs."""
    width, hidden, shapes = config.width, int(config.width * config.mlp_ratio), embedding(config)
    for i in range(config.depth):
        shapes |= norm(f"blocks.{i}.norm1", width) | norm(f"blocks.{i}.norm2", width)
        shapes |= linear(f"blocks.{i}.attn.qkv", 3 * width, width) | linear(f"blocks.{i}.attn.proj", width, width)
        shapes |= linear(f"blocks.{i}.mlp.fc1", hidden, width) | linear(f"blocks.{i}.mlp.fc2", width, hidden)
    head = linear("head", config.num_classes, width) if config.num_classes else {}
    return shapes | norm("fc_norm" if config.pooling == "mean" else "norm", width) | head


def optional(config: EvoDeiTConfig) -> Shapes:
    """Return the tensors that only DINOv2's training uses."""
    return {"mask_token": (1, config.width)}


def to_module(state: State) -> State:
    """Rename the canonical tensors for the network."""
    renamed = {"patch_embed.proj.": "patch_embed.", "fc_norm.": "norm."}
    module = {}
    for name, tensor in state.items():
        start = next((start for start in renamed if name.startswith(start)), "")
        module[renamed.get(start, "") + name.removeprefix(start)] = tensor
    return module


def _at_grid(state: State, grid: int) -> State:
    """Resize positions by DINOv2's recipe if a mask token shows that the file is DINOv2's, else by timm's.

    DeiT's files look the same as timm's, and are resized by timm's recipe too.
    """
    dinov2 = "mask_token" in state
    positions = resized(state["pos_embed"], grid, antialias=not dinov2, offset=0.1 if dinov2 else 0.0)
    return state | {"pos_embed": positions}


LAYOUT = Layout(
    "timm ViT", EvoDeiTConfig, _recognises, infer, required, optional, to_module, EvoDeiT, canonical, _at_grid,
    selects=False,
)  # fmt: skip
