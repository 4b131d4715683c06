"""Batch norms folded into the layers beside them: the same function of the images, in fewer operations."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from evodeploy.models.evo_levit import BNLinear, ConvBN, LinearBN, TwinHead

M = TypeVar("M", bound=nn.Module)


def folded(model: M) -> M:
    """A frozen copy of `model` for inference, whose batch norms, and pairs of heads, are folded into single layers.

    A model without batch norms is copied as it is.
    """
    model = copy.deepcopy(model).eval()
    _fold_children(model)
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
