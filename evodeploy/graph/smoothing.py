"""Outliers moved from the outputs of LayerNorm into the weights behind it, so that INT8 has less of a range to cover.

SmoothQuant (Xiao et al., ICML 2023): a channel of LayerNorm's scale and bias is divided by a factor, and the weights
that it meets are multiplied by it. In FP32 nothing changes. What is left for INT8 to cover in the activation, which has
one scale for all channels, becomes more even; the weight, with a scale for each output channel, can bear it.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from onnx import ModelProto, TensorProto, numpy_helper

from evodeploy.engines.base import Array
from evodeploy.graph.changed import Changed
from evodeploy.graph.linear import linear_layers

# Of the outliers' range, how much goes into the weights. The paper's 0.5 lets a few more tokens change than 0.7, on the
# sample and on a trained DINOv2 alike.
STRENGTH = 0.7


@dataclass(frozen=True)
class Smoothed(Changed):
    """Also the largest magnitude of each channel, (C,), that the inputs of linear layers have then, by their names."""

    magnitudes: Mapping[str, Array] = field(default_factory=dict)


def smoothed(model: ModelProto, magnitudes: Mapping[str, Array]) -> Smoothed:
    """`model` with the outliers moved; counts LayerNorms.

    `magnitudes` are the largest of each channel, (C,), by the value's name. A LayerNorm is left as it is where anything
    else reads its output, or where its parameters serve elsewhere too.
    """
    result = ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    layers = collections.defaultdict(list)
    for layer in linear_layers(graph):
        layers[layer.input].append(layer)
    uses = collections.Counter(name for node in graph.node for name in node.input)
    uses.update(output.name for output in graph.output)
    even, count = dict(magnitudes), 0
    for node in graph.node:
        behind = layers[node.output[0]]
        owned = [*node.input[1:], *(layer.weight.name for layer in behind)]
        if node.op_type != "LayerNormalization" or uses[node.output[0]] != len(behind) or not behind:
            continue
        if any(uses[name] != 1 or name not in tensors for name in owned):
            continue
        weights = [np.moveaxis(numpy_helper.to_array(layer.weight), layer.axis, 1) for layer in behind]
        largest = np.max([np.abs(weight).max(axis=1) for weight in weights], axis=0)
        factor = _factor(magnitudes[node.output[0]], largest)
        for name in node.input[1:]:
            _set(tensors[name], numpy_helper.to_array(tensors[name]) / factor)
        for layer, weight in zip(behind, weights, strict=True):
            _set(layer.weight, np.moveaxis(weight * factor[:, None], 1, layer.axis))
        smooth = f"{node.output[0]}_smooth"  # another name, for it is another value
        even[smooth] = magnitudes[node.output[0]] / factor
        for layer in behind:
            layer.node.input[0] = smooth
        node.output[0] = smooth
        count += 1
    return Smoothed(result if count else model, count, magnitudes=even)


def _factor(activation: Array, weight: Array) -> Array:
    """What each channel is divided by, from the largest magnitudes in activation and weight; 1 where one is 0."""
    used = (activation > 0) & (weight > 0)
    activation, weight = np.where(used, activation, 1), np.where(used, weight, 1)
    return (activation**STRENGTH / weight ** (1 - STRENGTH)).astype(np.float32)


def _set(tensor: TensorProto, values: Array) -> None:
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values, np.float32), tensor.name))
