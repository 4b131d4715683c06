"""FP32 ONNX to FP16 or BF16 ONNX: precision lives in the file, because no current TensorRT takes it from a flag.

Weights and activations are converted; inputs and outputs of the graph keep their types. What decides the selection,
from the class attention's softmax to TopK, stays FP32, as do the normalising of bytes and every operator whose
definition in the ONNX standard admits no such type.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from evodeploy.errors import UsageError
from evodeploy.onnx_files import info_of, precision_of, set_info
from evodeploy.specs import Reduced

# Where the scores of a selection come from: the search upstream of TopK ends at these.
_SCORE_SOURCES = {"MatMul", "Gemm", "Conv", "LayerNormalization", "Attention", "Split"}

_FP16_SMALLEST = np.float32(2**-24)

_NORMALISING = {"Cast", "Add", "Sub", "Mul", "Div"}

_Values = NDArray[Any]


@dataclass(frozen=True)
class _Format:
    """A reduced precision in ONNX's and in NumPy's terms, and the largest number that it holds."""

    name: Reduced
    onnx_type: int
    schema_type: str
    dtype: np.dtype[Any]
    largest: float


def _format(name: Reduced) -> _Format:
    if name == "fp16":
        return _Format(name, TensorProto.FLOAT16, "tensor(float16)", np.dtype(np.float16), 65504.0)
    bfloat16 = helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16)
    return _Format(name, TensorProto.BFLOAT16, "tensor(bfloat16)", bfloat16, 3.3895314e38)


@dataclass(frozen=True)
class ReducedModel:
    """The converted model and the FP32 nodes left in it: node name to reason."""

    proto: ModelProto
    kept_fp32: dict[str, str]


def reduced_from_onnx(model: ModelProto, precision: Reduced) -> ReducedModel:
    """Convert `model`, or of a quantized one all that is not quantized.

    Raises UsageError where its floats are not FP32 or a weight is out of range (65504 for FP16).
    """
    held = precision_of(model)
    if held in ("fp16", "bf16") or TensorProto.FLOAT not in {each.data_type for each in model.graph.initializer}:
        raise UsageError(f"the ONNX holds {held.upper()} weights already: leave out --{precision}")
    if any(attribute.g.node for node in model.graph.node for attribute in node.attribute):
        raise UsageError("the ONNX has subgraphs (If, Loop, Scan), which the conversion of precision does not take")
    return _Converter(model, _format(precision)).convert()


class _Converter:
    """Rebuilds the graph node by node, in order, so that every cast stands before its use."""

    def __init__(self, model: ModelProto, target: _Format) -> None:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        graph = inferred.graph
        self.model = model
        self.target = target
        self.opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
        self.floats = {
            value.name
            for value in (*graph.input, *graph.output, *graph.value_info)
            if value.type.tensor_type.elem_type == TensorProto.FLOAT
        } | {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
        self.weights = {tensor.name: tensor for tensor in graph.initializer}
        quantizing = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
        self.scales = {node.input[1] for node in quantizing}
        self.scoring = _scoring_nodes(model.graph)
        self.normalising = _normalising_nodes(model.graph)
        self.reduced: set[str] = set()  # values that are now of the target precision
        self.made: dict[tuple[str, int], str] = {}  # (value, type wanted) to the cast or converted weight
        self.nodes: list[NodeProto] = []
        self.converted: list[TensorProto] = []
        self.kept: dict[str, str] = {}

    def convert(self) -> ReducedModel:
        graph = self.model.graph
        for node in graph.node:
            self._convert_node(node)
        for output in graph.output:
            if output.name in self.reduced:
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
        return ReducedModel(result, self.kept)

    def _convert_node(self, node: NodeProto) -> None:
        slots = self._slots(node)
        copy = NodeProto()
        copy.CopyFrom(node)
        for i, name in enumerate(node.input):
            if name in self.floats:
                wanted = self.target.onnx_type if i in slots.inputs else TensorProto.FLOAT
                copy.input[i] = self._as_type(name, wanted)
        if node.op_type in ("Cast", "Constant", "ConstantOfShape") and node.output[0] not in self.normalising:
            self._retype_attributes(copy)
        self.nodes.append(copy)
        self.reduced |= {node.output[i] for i in slots.outputs if node.output[i] in self.floats}

    def _slots(self, node: NodeProto) -> _Slots:
        """Which inputs and outputs of `node` may be of the target precision."""
        floats = [i for i, name in enumerate(node.output) if name in self.floats]
        if node.output[0] in self.scoring:
            self.kept[_name(node)] = f"{node.op_type} decides a selection"
            return _Slots(set(), set())
        if node.output[0] in self.normalising:
            self.kept[_name(node)] = f"{node.op_type} normalises the images"
            return _Slots(set(), set())
        if node.op_type in ("Cast", "Constant", "ConstantOfShape"):
            return _Slots(set(range(len(node.input))), set(floats))
        schema = onnx.defs.get_schema(node.op_type, self.opset, node.domain)
        takes = {c.type_param_str for c in schema.type_constraints if self.target.schema_type in c.allowed_type_strs}
        slots = _Slots(
            {i for i in range(len(node.input)) if _formal(schema.inputs, i).type_str in takes},
            {i for i in floats if _formal(schema.outputs, i).type_str in takes},
        )
        if len(slots.outputs) < len(floats):
            self.kept[_name(node)] = f"{node.op_type} has no {self.target.name.upper()} form at opset {self.opset}"
            return _Slots(set(), set())
        return slots

    def _as_type(self, name: str, wanted: int) -> str:
        if (name in self.reduced) == (wanted == self.target.onnx_type):
            return name
        key = (name, wanted)
        if key not in self.made:
            self.made[key] = f"{name}_{'fp32' if wanted == TensorProto.FLOAT else self.target.name}"
            if name in self.weights:
                self.converted.append(_converted(self.weights[name], self.made[key], self.target, name in self.scales))
            else:
                self.nodes.append(
                    helper.make_node("Cast", [name], [self.made[key]], f"cast_{self.made[key]}", to=wanted)
                )
        return self.made[key]

    def _restore_output(self, name: str) -> None:
        """Let a converted value leave the graph as the FP32 output it was."""
        inner = f"{name}_{self.target.name}"
        for node in self.nodes:
            for names in (node.input, node.output):
                for i, used in enumerate(names):
                    if used == name:
                        names[i] = inner
        self.nodes.append(helper.make_node("Cast", [inner], [name], f"cast_{name}", to=TensorProto.FLOAT))

    def _retype_attributes(self, node: NodeProto) -> None:
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = self.target.onnx_type
            elif attribute.name == "value" and attribute.t.data_type == TensorProto.FLOAT:
                attribute.t.CopyFrom(_converted(attribute.t, attribute.t.name, self.target))


@dataclass(frozen=True)
class _Slots:
    inputs: set[int]
    outputs: set[int]


def _formal(parameters: Sequence[onnx.defs.OpSchema.FormalParameter], index: int) -> onnx.defs.OpSchema.FormalParameter:
    """The schema's parameter for position `index`: the last one repeats where it is variadic."""
    return parameters[min(index, len(parameters) - 1)]


def _scoring_nodes(graph: GraphProto) -> set[str]:
    """First outputs of all TopK nodes and of the nodes between the last matrix product and them."""
    makers = {name: node for node in graph.node for name in node.output}
    scoring: set[str] = set()
    waiting = [node for node in graph.node if node.op_type == "TopK"]
    while waiting:
        node = waiting.pop()
        if node.output[0] not in scoring and node.op_type not in _SCORE_SOURCES:
            scoring.add(node.output[0])
            waiting += _float_makers(node, makers)
    return scoring


def _normalising_nodes(graph: GraphProto) -> set[str]:
    """First outputs of the element-wise nodes through which images go that come as bytes."""
    reached = {value.name for value in graph.input if value.type.tensor_type.elem_type == TensorProto.UINT8}
    normalising: set[str] = set()
    for node in graph.node:
        if node.op_type in _NORMALISING and reached & set(node.input):
            reached.add(node.output[0])
            normalising.add(node.output[0])
    return normalising


def _name(node: NodeProto) -> str:
    return node.name or node.output[0]


def _float_makers(node: NodeProto, makers: dict[str, NodeProto]) -> Iterator[NodeProto]:
    indices = 1 if node.op_type in ("ScatterElements", "GatherElements", "Gather", "Slice", "TopK") else None
    for i, name in enumerate(node.input):
        if name in makers and i != indices:
            yield makers[name]


def _converted(tensor: TensorProto, name: str, target: _Format, scale: bool = False) -> TensorProto:
    values: _Values = numpy_helper.to_array(tensor)
    if scale:  # of a channel that is next to nothing; no runtime takes 0
        values = np.maximum(values, _FP16_SMALLEST)
    largest = float(np.abs(values).max(initial=0.0))
    if largest > target.largest:
        raise UsageError(
            f"weight {tensor.name} reaches {largest:.3g}, beyond {target.name.upper()}'s {target.largest:.5g}: "
            "build with --bf16 or --fp32"
        )
    return numpy_helper.from_array(values.astype(target.dtype), name)
