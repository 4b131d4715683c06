"""FP32 ONNX to FP16 or BF16 ONNX. The file determines the precision, because no current TensorRT takes it from a flag.

Weights and activations are converted; inputs and outputs of the graph keep their types. Some nodes stay in FP32: those
that decide the selection, from the class attention's softmax to TopK, those that normalise uint8 images, operators that
the ONNX standard does not define for the type, and nodes kept on request.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, TypeProto, helper, numpy_helper

from evodeploy.errors import UsageError
from evodeploy.graph.changed import Changed
from evodeploy.graph.islands import normalising_nodes, scoring_nodes
from evodeploy.graph.keeping import joined, kept_nodes
from evodeploy.graph.nodes import node_name
from evodeploy.onnx_files import info_of, opset_of, precision_of, set_info
from evodeploy.specs import ASKED, FP16_LARGEST, Reduced

_FP16_SMALLEST = np.float32(2**-24)

_Values = NDArray[Any]


@dataclass(frozen=True)
class _Format:
    """A reduced precision, as ONNX and as NumPy name it, and its largest number."""

    name: Reduced
    onnx_type: int
    schema_type: str
    dtype: np.dtype[Any]
    largest: float


def _format(name: Reduced) -> _Format:
    if name == "fp16":
        return _Format(name, TensorProto.FLOAT16, "tensor(float16)", np.dtype(np.float16), FP16_LARGEST)
    bfloat16 = helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16)
    return _Format(name, TensorProto.BFLOAT16, "tensor(bfloat16)", bfloat16, 3.3895314e38)


def reduced_from_onnx(model: ModelProto, precision: Reduced, keep_fp32: Sequence[str] = ()) -> Changed:
    """Convert `model`, or the unquantized part of a quantized model; counts nodes that compute in `precision`.

    Nodes whose name or operator type matches one of the patterns `keep_fp32` stay in FP32. Raises UsageError if the
    floats are not FP32, if a weight is out of range (65504 for FP16), if no node matches a pattern, or for operators
    outside of ONNX's own.
    """
    held = precision_of(model)
    if held in ("fp16", "bf16") or TensorProto.FLOAT not in {each.data_type for each in model.graph.initializer}:
        raise UsageError(f"the ONNX holds {held.upper()} weights already: leave out --{precision}")
    if any(attribute.g.node for node in model.graph.node for attribute in node.attribute):
        raise UsageError("the ONNX has subgraphs (If, Loop, Scan), which the conversion of precision does not take")
    foreign = next((node for node in model.graph.node if not onnx.defs.has(node.op_type, node.domain)), None)
    if foreign is not None:
        raise UsageError(
            f"the ONNX has {foreign.op_type} of {foreign.domain}, which is no operator of ONNX, and the conversion of "
            f"precision takes no others: leave out --{precision}"
        )
    return _Converter(model, _format(precision), keep_fp32).convert()


class _Converter:
    """The conversion of one graph. It rebuilds the graph node by node, so that each cast comes before its use."""

    def __init__(self, model: ModelProto, target: _Format, keep_fp32: Sequence[str]) -> None:
        graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
        self.model = model
        self.target = target
        self.opset = opset_of(model)
        # Each value's type: at first that in the FP32 model, then, node by node, that in the converted model.
        self.types = {value.name: value.type for value in (*graph.input, *graph.output, *graph.value_info)}
        for tensor in graph.initializer:
            self.types[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
        self.floats = {name for name in self.types if self._element(name) == TensorProto.FLOAT}
        self.weights = {tensor.name: tensor for tensor in graph.initializer}
        quantizing = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
        self.scales = {node.input[1] for node in quantizing}
        self.scoring = scoring_nodes(
            model.graph, {name for name in self.types if self._element(name) in (TensorProto.FLOAT, TensorProto.BOOL)}
        )
        self.normalising = normalising_nodes(model.graph)
        self.asked = kept_nodes(model.graph, keep_fp32)
        self.between = joined(model.graph, self.asked, self.floats - set(self.weights)) if self.asked else set()
        self.made: dict[tuple[str, int], str] = {}  # (value, type wanted) to the cast or converted weight
        self.nodes: list[NodeProto] = []
        self.converted: list[TensorProto] = []
        self.kept: dict[str, str] = {}
        self.count = 0

    def convert(self) -> Changed:
        graph = self.model.graph
        for node in graph.node:
            self._convert_node(node)
        for output in graph.output:
            if output.name in self.floats and self._element(output.name) != TensorProto.FLOAT:
                self._restore_output(output.name)
        result = ModelProto()
        result.CopyFrom(self.model)
        del result.graph.node[:], result.graph.initializer[:], result.graph.value_info[:]
        result.graph.node.extend(self.nodes)
        used = {name for node in self.nodes for name in node.input}
        initializers = (*graph.initializer, *self.converted)
        result.graph.initializer.extend(tensor for tensor in initializers if tensor.name in used)
        info = info_of(self.model)
        if info is not None and info.precision == "fp32":
            set_info(result, dataclasses.replace(info, precision=self.target.name))
        onnx.checker.check_model(result, full_check=True)
        return Changed(result, self.count, self.kept)

    def _convert_node(self, node: NodeProto) -> None:
        slots = self._slots(node)
        copy = NodeProto()
        copy.CopyFrom(node)
        for i, name in enumerate(node.input):
            if name in self.floats:
                wanted = self.target.onnx_type if i in slots.inputs else TensorProto.FLOAT
                copy.input[i] = self._as_type(name, wanted, node_name(node))
        if slots.outputs:
            self._retype_attributes(copy)
            self.count += 1
        self.nodes.append(copy)
        self._infer_types(copy)

    def _slots(self, node: NodeProto) -> _Slots:
        """Return which inputs and outputs of `node` can have the target precision."""
        floats = [i for i, name in enumerate(node.output) if name in self.floats]
        if not floats and not self.floats.intersection(node.input):
            return _Slots(set(), set())
        if node.output[0] in self.asked:
            self.kept[node_name(node)] = ASKED
            return _Slots(set(), set())
        if node.output[0] in self.between:
            self.kept[node_name(node)] = f"{node.op_type} moves numbers between nodes that are kept"
            return _Slots(set(), set())
        if node.output[0] in self.scoring:
            self.kept[node_name(node)] = f"{node.op_type} decides a selection"
            return _Slots(set(), set())
        if node.output[0] in self.normalising:
            self.kept[node_name(node)] = f"{node.op_type} normalises the images"
            return _Slots(set(), set())
        schema = self._schema(node)
        takes = {c.type_param_str for c in schema.type_constraints if self.target.schema_type in c.allowed_type_strs}
        slots = _Slots(
            {i for i in range(len(node.input)) if _formal(schema.inputs, i).type_str in takes},
            {i for i in floats if _formal(schema.outputs, i).type_str in takes},
        )
        if len(slots.outputs) < len(floats):
            self.kept[node_name(node)] = f"{node.op_type} has no {self.target.name.upper()} form at opset {self.opset}"
            return _Slots(set(), set())
        return slots

    def _element(self, name: str) -> int:
        kind: int = self.types[name].tensor_type.elem_type
        return kind

    def _schema(self, node: NodeProto) -> onnx.defs.OpSchema:
        return onnx.defs.get_schema(node.op_type, self.opset, node.domain)

    def _infer_types(self, node: NodeProto) -> None:
        """Infer the types of the outputs of the converted `node` by the rules of the ONNX standard."""
        inputs = {name: self.types[name] for name in node.input if name}
        opsets = [helper.make_opsetid(node.domain, self.opset)]
        found = onnx.shape_inference.infer_node_outputs(self._schema(node), node, inputs, opset_imports=opsets)
        for name, kind in found.items():
            self.types[name].tensor_type.elem_type = kind.tensor_type.elem_type

    def _as_type(self, name: str, wanted: int, reader: str) -> str:
        if self._element(name) == wanted:
            return name
        key = (name, wanted)
        if key not in self.made:
            self.made[key] = f"{name}_{'fp32' if wanted == TensorProto.FLOAT else self.target.name}"
            if name in self.weights:
                tensor = _converted(self.weights[name], self.made[key], self.target, reader, name in self.scales)
                self.converted.append(tensor)
            else:
                self.nodes.append(
                    helper.make_node("Cast", [name], [self.made[key]], f"cast_{self.made[key]}", to=wanted)
                )
            kind = TypeProto()
            kind.CopyFrom(self.types[name])
            kind.tensor_type.elem_type = wanted
            self.types[self.made[key]] = kind
        return self.made[key]

    def _restore_output(self, name: str) -> None:
        """Cast a converted value back to FP32, so that the graph's output keeps its type and name."""
        inner = f"{name}_{self.target.name}"
        for node in self.nodes:
            for names in (node.input, node.output):
                for i, used in enumerate(names):
                    if used == name:
                        names[i] = inner
        self.nodes.append(helper.make_node("Cast", [inner], [name], f"cast_{name}", to=TensorProto.FLOAT))

    def _retype_attributes(self, node: NodeProto) -> None:
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype") and attribute.i == TensorProto.FLOAT:
                attribute.i = self.target.onnx_type
            elif attribute.name == "value" and attribute.t.data_type == TensorProto.FLOAT:
                attribute.t.CopyFrom(_converted(attribute.t, attribute.t.name, self.target, node_name(node)))
            elif attribute.name in ("value_float", "value_floats"):
                values = numpy_helper.from_array(np.array(helper.get_attribute_value(attribute), np.float32))
                reduced = _converted(values, node.output[0], self.target, node_name(node))
                attribute.CopyFrom(helper.make_attribute("value", reduced))


@dataclass(frozen=True)
class _Slots:
    inputs: set[int]
    outputs: set[int]


def _formal(parameters: Sequence[onnx.defs.OpSchema.FormalParameter], index: int) -> onnx.defs.OpSchema.FormalParameter:
    """Return the schema's parameter for position `index`; a variadic last parameter repeats."""
    return parameters[min(index, len(parameters) - 1)]


def _converted(tensor: TensorProto, name: str, target: _Format, reader: str, scale: bool = False) -> TensorProto:
    values: _Values = numpy_helper.to_array(tensor)
    if scale:  # of a channel that is almost zero; no runtime accepts a scale of 0
        values = np.maximum(values, _FP16_SMALLEST)
    elif values.size == 1 and target.name == "fp16" and 0 < np.abs(values).item() < _FP16_SMALLEST:
        values = np.copysign(_FP16_SMALLEST, values)  # an epsilon that protects a divisor must not become 0
    largest = float(np.abs(values, where=np.isfinite(values), out=np.zeros_like(values)).max(initial=0.0))
    if largest > target.largest:
        raise UsageError(
            f"weight {tensor.name} reaches {largest:.3g}, beyond {target.name.upper()}'s {target.largest:.5g}: keep "
            f"its node in FP32 with --keep-fp32 '{reader}', or build with --bf16 or --fp32"
        )
    return numpy_helper.from_array(values.astype(target.dtype), name)
