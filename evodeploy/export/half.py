"""FP32 ONNX to FP16 ONNX: precision lives in the file, because no current TensorRT takes it from a flag.

Weights and activations become FP16; inputs and outputs of the graph keep their types. What decides the selection, from
the class attention's softmax to TopK, stays FP32, as does every operator whose definition in the ONNX standard
admits no FP16.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from evodeploy.errors import UsageError
from evodeploy.onnx_files import info_of, set_info

# Where the scores of a selection come from: the search upstream of TopK ends at these.
_SCORE_SOURCES = {"MatMul", "Gemm", "Conv", "LayerNormalization", "Attention", "Split"}
_FP16_MAX = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class HalfModel:
    """The converted model and the FP32 nodes left in it: node name to reason."""

    proto: ModelProto
    kept_fp32: dict[str, str]


def half_from_onnx(model: ModelProto) -> HalfModel:
    """Convert `model`; raises UsageError where it is not plain FP32 or a weight exceeds FP16's range (65504)."""
    graph = model.graph
    if any(tensor.data_type == TensorProto.FLOAT16 for tensor in graph.initializer):
        raise UsageError("the ONNX already holds FP16 weights: leave out --fp16")
    if any(attribute.g.node for node in graph.node for attribute in node.attribute):
        raise UsageError("the ONNX has subgraphs (If, Loop, Scan), which FP16 conversion does not take")
    return _Converter(model).convert()


class _Converter:
    """Rebuilds the graph node by node, in order, so that every cast stands before its use."""

    def __init__(self, model: ModelProto) -> None:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        graph = inferred.graph
        self.model = model
        self.opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
        self.floats = {
            value.name
            for value in (*graph.input, *graph.output, *graph.value_info)
            if value.type.tensor_type.elem_type == TensorProto.FLOAT
        } | {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
        self.weights = {tensor.name: tensor for tensor in graph.initializer}
        self.scoring = _scoring_nodes(model.graph)
        self.half: set[str] = set()  # values that are now FP16
        self.made: dict[tuple[str, int], str] = {}  # (value, type wanted) to the cast or converted weight
        self.nodes: list[NodeProto] = []
        self.converted: list[TensorProto] = []
        self.kept: dict[str, str] = {}

    def convert(self) -> HalfModel:
        graph = self.model.graph
        for node in graph.node:
            self._convert_node(node)
        for output in graph.output:
            if output.name in self.half:
                self._restore_output(output.name)
        result = ModelProto()
        result.CopyFrom(self.model)
        del result.graph.node[:], result.graph.initializer[:], result.graph.value_info[:]
        result.graph.node.extend(self.nodes)
        used = {name for node in self.nodes for name in node.input}
        initializers = (*graph.initializer, *self.converted)
        result.graph.initializer.extend(tensor for tensor in initializers if tensor.name in used)
        info = info_of(self.model)
        if info is not None:
            set_info(result, dataclasses.replace(info, precision="fp16"))
        onnx.checker.check_model(result, full_check=True)
        return HalfModel(result, self.kept)

    def _convert_node(self, node: NodeProto) -> None:
        halves = self._half_slots(node)
        copy = NodeProto()
        copy.CopyFrom(node)
        for i, name in enumerate(node.input):
            if name in self.floats:
                wanted = TensorProto.FLOAT16 if i in halves.inputs else TensorProto.FLOAT
                copy.input[i] = self._as_type(name, wanted)
        if node.op_type in ("Cast", "Constant", "ConstantOfShape"):
            _retype_attributes(copy, bool(halves.outputs))
        self.nodes.append(copy)
        self.half |= {node.output[i] for i in halves.outputs if node.output[i] in self.floats}

    def _half_slots(self, node: NodeProto) -> _Slots:
        """Which inputs and outputs of `node` may be FP16."""
        floats = [i for i, name in enumerate(node.output) if name in self.floats]
        if node.output[0] in self.scoring:
            self.kept[_name(node)] = f"{node.op_type} decides a selection"
            return _Slots(set(), set())
        if node.op_type in ("Cast", "Constant", "ConstantOfShape"):
            return _Slots(set(range(len(node.input))), set(floats))
        schema = onnx.defs.get_schema(node.op_type, self.opset, node.domain)
        halves = {c.type_param_str for c in schema.type_constraints if "tensor(float16)" in c.allowed_type_strs}
        slots = _Slots(
            {i for i in range(len(node.input)) if _formal(schema.inputs, i).type_str in halves},
            {i for i in floats if _formal(schema.outputs, i).type_str in halves},
        )
        if len(slots.outputs) < len(floats):
            self.kept[_name(node)] = f"{node.op_type} has no FP16 form at opset {self.opset}"
            return _Slots(set(), set())
        return slots

    def _as_type(self, name: str, wanted: int) -> str:
        if (name in self.half) == (wanted == TensorProto.FLOAT16):
            return name
        key = (name, wanted)
        if key not in self.made:
            self.made[key] = f"{name}_{'fp16' if wanted == TensorProto.FLOAT16 else 'fp32'}"
            if name in self.weights:
                self.converted.append(_half_weight(self.weights[name], self.made[key]))
            else:
                self.nodes.append(
                    helper.make_node("Cast", [name], [self.made[key]], f"cast_{self.made[key]}", to=wanted)
                )
        return self.made[key]

    def _restore_output(self, name: str) -> None:
        """Let an FP16 value leave the graph as the FP32 output it was."""
        inner = f"{name}_fp16"
        for node in self.nodes:
            for names in (node.input, node.output):
                for i, used in enumerate(names):
                    if used == name:
                        names[i] = inner
        self.nodes.append(helper.make_node("Cast", [inner], [name], f"cast_{name}", to=TensorProto.FLOAT))


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


def _name(node: NodeProto) -> str:
    return node.name or node.output[0]


def _float_makers(node: NodeProto, makers: dict[str, NodeProto]) -> Iterator[NodeProto]:
    indices = 1 if node.op_type in ("ScatterElements", "GatherElements", "Gather", "Slice", "TopK") else None
    for i, name in enumerate(node.input):
        if name in makers and i != indices:
            yield makers[name]


def _half_weight(tensor: TensorProto, name: str) -> TensorProto:
    values = numpy_helper.to_array(tensor)
    largest = float(np.abs(values).max(initial=0.0))
    if largest > _FP16_MAX:
        raise UsageError(
            f"weight {tensor.name} reaches {largest:.3g}, beyond FP16's {_FP16_MAX:.0f}: build with --fp32"
        )
    return numpy_helper.from_array(values.astype(np.float16), name)


def _retype_attributes(node: NodeProto, half: bool) -> None:
    for attribute in node.attribute:
        if attribute.name == "to" and attribute.i == TensorProto.FLOAT and half:
            attribute.i = TensorProto.FLOAT16
        elif attribute.name == "value" and attribute.t.data_type == TensorProto.FLOAT and half:
            attribute.t.CopyFrom(_half_weight(attribute.t, attribute.t.name))
