"""Batch norms folded into the layers beside them: the same function of the images, in fewer operations."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from evodeploy.models.evo_levit import Attention, BNLinear, ConvBN, LinearBN, SubsampleAttention, TwinHead

M = TypeVar("M", bound=nn.Module)


def folded(model: M, pad_keys: bool = False) -> M:
    """A frozen copy of `model` for inference, whose batch norms, and pairs of heads, are folded into single layers.

    With `pad_keys` queries and keys get zero channels up to the width of the values, which leaves every product of
    theirs as it was: fused attention kernels want one width. A model without batch norms is copied as it is.
    """
    model = copy.deepcopy(model).eval()
    _fold_children(model)
    if pad_keys:
        for module in model.modules():
            if isinstance(module, (Attention, SubsampleAttention)):
                _pad(module)
    return model.requires_grad_(False)


def _fold_children(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, (ConvBN, LinearBN, BNLinear, TwinHead)):
            dtype = next(child.parameters()).dtype
            setattr(module, name, _single(child.double()).to(dtype))  # rounded once, at the end
        else:
            _fold_children(child)


def _single(module: ConvBN | LinearBN | BNLinear | TwinHead) -> nn.Module:
    """One layer that computes what `module` does."""
    if isinstance(module, ConvBN):
        return fuse_conv_bn_eval(module.conv, module.bn)
    if isinstance(module, LinearBN):
        return fuse_linear_bn_eval(module.linear, module.bn)
    if isinstance(module, BNLinear):
        return _after_norm(module)
    label, distilled = _after_norm(module.label), _after_norm(module.distilled)
    return _linear((label.weight + distilled.weight) / 2, (label.bias + distilled.bias) / 2)


def _after_norm(module: BNLinear) -> nn.Linear:
    norm, linear = module.bn, module.linear
    assert norm.running_mean is not None and norm.running_var is not None  # BNLinear's norm tracks them
    gain = norm.weight * (norm.running_var + norm.eps).rsqrt()
    offset = norm.bias - norm.running_mean * gain
    return _linear(linear.weight * gain, linear.bias + linear.weight @ offset)


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
    return layer


def _pad(module: Attention | SubsampleAttention) -> None:
    """Give query and key of `module`, whose layers are folded, the width of its values."""
    heads, key, value = module.heads, module.key_width, module.value_width
    if isinstance(module, Attention):
        module.qkv = _padded(module.qkv, heads, (key, key, value), value)
    else:
        module.kv = _padded(module.kv, heads, (key, value), value)
        module.query = _padded(module.query, heads, (key,), value)
    module.key_width = value


def _padded(layer: nn.Module, heads: int, widths: tuple[int, ...], width: int) -> nn.Linear:
    """`layer` with zero channels after each of a head's parts, `widths` wide now, so that each is `width` wide."""
    assert isinstance(layer, nn.Linear)

    def pad(values: Tensor) -> Tensor:
        parts = values.reshape(heads, sum(widths), -1).split_with_sizes(widths, dim=1)
        wide = [F.pad(part, (0, 0, 0, width - part.shape[1])) for part in parts]
        return torch.cat(wide, dim=1).flatten(0, 1)

    return _linear(pad(layer.weight), pad(layer.bias).squeeze(1))
