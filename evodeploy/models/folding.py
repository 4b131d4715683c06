"""Folding batch norms and attention scales into the neighbouring layers: the same function in fewer operations."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from evodeploy.models import evo_deit, levit_blocks
from evodeploy.models.levit_blocks import BNLinear, ConvBN, LinearBN, TwinHead

M = TypeVar("M", bound=nn.Module)


def folded(model: M) -> M:
    """Return a frozen copy of `model` for inference.

    Batch norms and pairs of heads are folded into single layers, and attention scales into the query weights.
    """
    model = copy.deepcopy(model).eval()
    _fold_children(model)
    for module in model.modules():
        if isinstance(module, (evo_deit.Attention, levit_blocks.Attention, levit_blocks.SubsampleAttention)):
            _scale_queries(module)
    return model.requires_grad_(False)


def _fold_children(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, (ConvBN, LinearBN, BNLinear, TwinHead)):
            dtype = next(child.parameters()).dtype
            setattr(module, name, _single(child.double()).to(dtype))  # in FP64, so that weights are rounded once
        else:
            _fold_children(child)


def _scale_queries(module: evo_deit.Attention | levit_blocks.Attention | levit_blocks.SubsampleAttention) -> None:
    """Multiply the query weights of `module`, whose layers are already folded, by its scale."""
    if isinstance(module, levit_blocks.SubsampleAttention):
        layer, groups, queries = module.query, 1, slice(None)
    elif isinstance(module, levit_blocks.Attention):
        layer, groups, queries = module.qkv, module.heads, slice(module.key_width)
    else:
        layer, groups, queries = module.qkv, 1, slice(module.qkv.in_features)
    for values in (layer.weight, layer.bias):
        assert isinstance(values, Tensor)
        values.data.view(groups, -1, *values.shape[1:])[:, queries] *= module.scale
    module.scale = 1.0


def _single(module: ConvBN | LinearBN | BNLinear | TwinHead) -> nn.Module:
    """Return a single layer that computes the same as `module`."""
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
