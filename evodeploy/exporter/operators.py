"""Translations of the network's operators to ONNX: one node instead of the many that the exporter would make."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from onnxscript import opset18, opset23

FUSED_ATTENTION_OPSET = 23


def translations(opset: int) -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return the translation table for torch.onnx at `opset`, with the standard Attention operator if it exists."""
    attention = _fused_attention if opset >= FUSED_ATTENTION_OPSET else _plain_attention
    aten = torch.ops.aten.scaled_dot_product_attention.default
    return {torch.ops.evodeploy.top_k.default: _top_k, aten: attention}


def _top_k(scores: Any, k: int) -> Any:
    values, indices = opset18.TopK(scores, opset18.Constant(value_ints=[k]), axis=-1, largest=1, sorted=1)
    return values, indices


def _plain_attention(query: Any, key: Any, value: Any, bias: Any = None, *_: Any, scale: float, **__: Any) -> Any:
    if scale != 1.0:
        query = opset18.Mul(query, scale)
    logits = opset18.MatMul(query, opset18.Transpose(key, perm=[0, 1, 3, 2]))
    if bias is not None:
        logits = opset18.Add(logits, bias)
    return opset18.MatMul(opset18.Softmax(logits, axis=-1), value)


def _fused_attention(query: Any, key: Any, value: Any, bias: Any = None, *_: Any, scale: float, **__: Any) -> Any:
    if bias is not None:  # ONNX Runtime's Attention refuses a bias of one row, which it would have to broadcast
        return _plain_attention(query, key, value, bias, scale=scale)
    mixed, *_unused = opset23.Attention(query, key, value, scale=scale)
    return mixed
