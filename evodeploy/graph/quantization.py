"""FP32 ONNX to INT8 or FP8 ONNX: linear layers quantized after training, calibrated on real images.

A linear layer's input and weight pass through QuantizeLinear and DequantizeLinear, in the form that ONNX Runtime,
OpenVINO and TensorRT compile to 8-bit products: symmetric, zero point 0, one scale for an activation, one for
each output channel of a weight, biases in FP32. Everything else stays in FP32: convolutions, LayerNorm, the products
inside attention, and so everything that decides a selection. Outliers of LayerNorm are first moved into the weights.

The pairs are placed here, not by onnxruntime.quantization, which inserts them for every user of a value. It would also
round Evo-LeViT's residuals, which have no norm in between, and more of the selected tokens would change.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from evodeploy.engines.base import Array
from evodeploy.errors import UsageError
from evodeploy.graph.changed import Changed
from evodeploy.graph.keeping import kept_nodes
from evodeploy.graph.linear import Linear, linear_layers
from evodeploy.graph.nodes import node_name
from evodeploy.graph.ranges import channel_ranges
from evodeploy.graph.smoothing import smoothed
from evodeploy.onnx_files import info_of, precision_of, set_info
from evodeploy.specs import ASKED, Quantized

_Values = NDArray[Any]
_PRODUCTS = {"MatMul", "Gemm", "Conv", "Attention"}


@dataclass(frozen=True)
class _Format:
    """An 8-bit type: its largest number, and its NumPy type."""

    largest: int
    dtype: np.dtype[Any]

    def rounded(self, values: _Values) -> _Values:
        integer = np.issubdtype(self.dtype, np.integer)
        return (np.rint(values) if integer else values).astype(self.dtype)


_FORMATS: dict[Quantized, _Format] = {
    "int8": _Format(127, np.dtype(np.int8)),  # -128 is left out, so that the range is symmetric
    "fp8": _Format(448, np.dtype(ml_dtypes.float8_e4m3fn)),
}


def quantized_from_onnx(
    model: ModelProto, images: Array, precision: Quantized = "int8", keep_fp32: Sequence[str] = ()
) -> Changed:
    """Quantize the linear layers of the FP32 `model`, with the ranges that their inputs have on `images`.

    Counts linear layers. `kept` has the other products, and the layers whose name or operator type matches one of the
    patterns `keep_fp32`.

    `images` are inputs of `model`, (N, …); the same images give the same file. Raises UsageError if the model is not
    plain FP32, if an activation is not finite, if no linear layer is left, or if no node matches a pattern.
    """
    held = precision_of(model)
    if held != "fp32":
        raise UsageError(f"the ONNX holds {held.upper()} weights already: {precision.upper()} is made from FP32")
    asked = kept_nodes(model.graph, keep_fp32)
    inputs = {layer.input for layer in linear_layers(model.graph)}
    if not inputs:
        raise UsageError("the ONNX has no linear layer with a weight of its own, so there is nothing to quantize")
    if all(layer.node.output[0] in asked for layer in linear_layers(model.graph)):
        raise UsageError("--keep-fp32 names every linear layer, so there is nothing to quantize: name fewer")
    magnitudes = channel_ranges(model, images, inputs)
    _check_finite(magnitudes, len(images))
    smooth = smoothed(model, magnitudes)
    return _Quantizer(smooth.model, smooth.magnitudes, precision, asked).convert()


class _Quantizer:
    """The quantization of one graph. It rebuilds the graph node by node, so that quantized values precede their use."""

    def __init__(
        self, model: ModelProto, magnitudes: Mapping[str, Array], precision: Quantized, asked: set[str]
    ) -> None:
        self.model = model
        self.precision, self.format, self.asked = precision, _FORMATS[precision], asked
        layers = {layer.node.output[0]: layer for layer in linear_layers(model.graph)}
        self.linear = {output: layer for output, layer in layers.items() if output not in asked}
        self.magnitudes = magnitudes
        self.made: dict[tuple[str, int | None], str] = {}  # (value, axis of its scales) to its replacement
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def convert(self) -> Changed:
        kept: dict[str, str] = {}
        for node in self.model.graph.node:
            copy = NodeProto()
            copy.CopyFrom(node)
            layer = self.linear.get(node.output[0])
            if layer is not None:
                copy.input[0] = self._activation(layer.input)
                copy.input[1] = self._weight(layer)
            elif node.op_type in _PRODUCTS:
                kept[node_name(node)] = ASKED if node.output[0] in self.asked else _reason(node)
            self.nodes.append(copy)
        result = ModelProto()
        result.CopyFrom(self.model)
        del result.graph.node[:], result.graph.initializer[:]
        result.graph.node.extend(self.nodes)
        used = {name for node in self.nodes for name in node.input}
        constants = (*self.model.graph.initializer, *self.constants)
        result.graph.initializer.extend(tensor for tensor in constants if tensor.name in used)
        info = info_of(self.model)
        if info is not None:
            set_info(result, dataclasses.replace(info, precision=self.precision))
        onnx.checker.check_model(result, full_check=True)
        return Changed(result, len(self.linear), kept)

    def _activation(self, name: str) -> str:
        """Quantize and dequantize the activation `name`; return the name of the result."""
        key = (name, None)
        if key not in self.made:
            scale, zero = self._parameters(name, np.float32(self._scale(self.magnitudes[name].max())))
            node = helper.make_node("QuantizeLinear", [name, scale, zero], [f"{name}_8bit"], f"quantize_{name}")
            self.nodes.append(node)
            self.made[key] = self._dequantized(name, scale, zero, None)
        return self.made[key]

    def _weight(self, layer: Linear) -> str:
        """Quantize the layer's weight, with a scale for each output channel; return the name of the dequantized one."""
        name, axis = layer.weight.name, layer.axis
        key = (name, axis)
        if key not in self.made:
            values: _Values = numpy_helper.to_array(layer.weight)
            scales = self._scale(np.abs(values).max(axis=1 - axis)).astype(np.float32)
            levels = self.format.rounded(values / np.expand_dims(scales, 1 - axis))
            scale, zero = self._parameters(name, scales)
            self.constants.append(numpy_helper.from_array(levels, f"{name}_8bit"))
            self.made[key] = self._dequantized(name, scale, zero, axis)
        return self.made[key]

    def _parameters(self, name: str, scale: _Values | np.float32) -> tuple[str, str]:
        names = f"{name}_scale", f"{name}_zero"
        self.constants.append(numpy_helper.from_array(np.asarray(scale), names[0]))
        self.constants.append(numpy_helper.from_array(np.zeros(np.shape(scale), self.format.dtype), names[1]))
        return names

    def _dequantized(self, name: str, scale: str, zero: str, axis: int | None) -> str:
        output = f"{name}_dequantized"
        axes: dict[str, Any] = {} if axis is None else {"axis": axis}
        self.nodes.append(
            helper.make_node("DequantizeLinear", [f"{name}_8bit", scale, zero], [output], f"dequantize_{name}", **axes)
        )
        return output

    def _scale(self, magnitude: Any) -> Any:
        """Return the value of one quantization step for the largest `magnitude`; if that is 0, any scale is valid."""
        return np.where(magnitude > 0, magnitude, 1.0) / self.format.largest


def _reason(node: NodeProto) -> str:
    if node.op_type == "Conv":
        return "a convolution of the image: little work, and all that follows depends on it"
    return f"{node.op_type} of two computed values: attention, or what tokens are selected or merged by"


def _check_finite(magnitudes: dict[str, Array], count: int) -> None:
    beyond = next((name for name, magnitude in magnitudes.items() if not np.isfinite(magnitude).all()), None)
    if beyond is not None:
        raise UsageError(
            f"the activation '{beyond}' is not finite on the {count} images, so it cannot be quantized: "
            "check the checkpoint with `evodeploy verify`"
        )
