"""Parts of ONNX graphs between values: the nodes that compute wanted values from given ones."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, TypeProto, helper

from evodeploy.arrays import Array
from evodeploy.errors import BadFileError, RuntimeFailedError
from evodeploy.onnx_files import fed_inputs
from evodeploy.text import reason

_OWN = "_own"  # suffix of a value that is both given and computed


class Graph:
    """An ONNX model, with the node that computes each value, and each value's element type.

    `rounded` maps the values that have a reduced type in the file to that type. `written` is the model in the file,
    without the nodes that round: see `emulation`.
    """

    def __init__(
        self, model: ModelProto, rounded: Mapping[str, int] | None = None, written: ModelProto | None = None
    ) -> None:
        inferred = onnx.shape_inference.infer_shapes(model).graph
        self.model = model
        self.rounded = rounded or {}
        self.written = (written or model).graph
        self.nodes: list[NodeProto] = list(model.graph.node)
        self.makers = {name: node for node in self.nodes for name in node.output if name}
        self.weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self.inputs = {value.name: value for value in fed_inputs(model)}
        self.types: dict[str, int] = {
            value.name: value.type.tensor_type.elem_type
            for value in (*inferred.value_info, *inferred.output, *inferred.input)
            if value.type.HasField("tensor_type")
        }

    @property
    def outputs(self) -> list[str]:
        """The output names."""
        return [value.name for value in self.model.graph.output]

    def shared_with(self, other: Graph) -> list[str]:
        """Return the names of the tensors that both graphs compute with the same type, in the order of this graph.

        If both nodes have names, these are the same too: an exporter numbers values, so `val_12` of one export may be
        another value in a different one.
        """
        ours, theirs = self._named, other._named
        return [
            name
            for name in self.makers
            if name in other.makers
            and self.types.get(name) == other.types.get(name) not in (None, 0)
            and (ours.get(name) == theirs.get(name) or not ours.get(name) or not theirs.get(name))
        ]

    @property
    def _named(self) -> dict[str, str]:
        """The name of the file's node that computes each value; not of a Cast, which hides the node before it."""
        return {name: node.name for node in self.written.node for name in node.output if node.op_type != "Cast"}


class Part:
    """The part of `graph` that computes the values `wanted` if the values `given` are inputs.

    A value that is both wanted and given is computed by its node from the given inputs of that node. `fed` are the
    given values that are needed. A given value is rounded to the type that the file gives it.
    """

    def __init__(self, graph: Graph, given: Collection[str], wanted: Sequence[str]) -> None:
        self._graph, self._wanted, given = graph, list(wanted), set(given)
        self._given = given
        needed, self.fed, used = set(), set[str](), set[str]()
        waiting = [graph.makers[name] for name in wanted if name in graph.makers]
        while waiting:
            node = waiting.pop()
            if node.output[0] in needed:
                continue
            needed.add(node.output[0])
            for name in _read(node):
                if name in given:
                    self.fed.add(name)
                elif name in graph.makers:
                    waiting.append(graph.makers[name])
                else:
                    used.add(name)
        self._nodes = [node for node in graph.nodes if node.output[0] in needed]
        self._used = used

    def model(self) -> ModelProto:
        """Return the part as a separate model."""
        graph = self._graph
        part = ModelProto(ir_version=graph.model.ir_version, opset_import=graph.model.opset_import)
        part.functions.extend(graph.model.functions)
        part.graph.name = graph.model.graph.name or "part"
        part.graph.input.extend(value for name, value in graph.inputs.items() if name in self._used)
        part.graph.initializer.extend(tensor for name, tensor in graph.weights.items() if name in self._used)
        for name in sorted(self.fed):
            kind = graph.types[name]
            if name in graph.rounded:
                part.graph.input.append(_untyped(f"{name}_given", kind))
                part.graph.node.append(
                    helper.make_node("Cast", [f"{name}_given"], [f"{name}_l"], to=graph.rounded[name])
                )
                part.graph.node.append(helper.make_node("Cast", [f"{name}_l"], [name], to=TensorProto.FLOAT))
            else:
                part.graph.input.append(_untyped(name, kind))
        for node in self._nodes:
            copy = part.graph.node.add()
            copy.CopyFrom(node)
            for index, name in enumerate(node.output):
                if name in self._given:
                    copy.output[index] = name + _OWN
        part.graph.output.extend(onnx.ValueInfoProto(name=self._own(name)) for name in self._wanted)
        return part

    def run(self, values: Mapping[str, Array]) -> dict[str, Array]:
        """Compute the wanted values from `values`, which holds the given ones and the graph's inputs."""
        feed = {name: values[name] for name in self._graph.inputs if name in self._used}
        for name in self.fed:
            feed[f"{name}_given" if name in self._graph.rounded else name] = values[name]
        try:
            found = self._session.run(None, feed)
        except Exception as error:  # ONNX Runtime has a separate exception type for each status code
            raise RuntimeFailedError(f"ONNX Runtime cannot compute a part of the network: {reason(error)}") from error
        return {name: np.asarray(value) for name, value in zip(self._wanted, found, strict=True)}

    @cached_property
    def _session(self) -> Any:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 4
        # No nodes are fused or removed, so that each one computes and rounds as the file specifies.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            return ort.InferenceSession(self.model().SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise BadFileError(f"ONNX Runtime {ort.__version__} cannot load the network: {reason(error)}") from error

    def _own(self, name: str) -> str:
        return name + _OWN if name in self._given else name


def _read(node: NodeProto) -> list[str]:
    """Return the values that `node` and its subgraphs read."""
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            made = {name for inner in graph.node for name in inner.output} | {value.name for value in graph.input}
            names += [name for inner in graph.node for name in _read(inner) if name not in made]
    return names


def _untyped(name: str, kind: int) -> onnx.ValueInfoProto:
    """Return an input of any shape."""
    return onnx.ValueInfoProto(name=name, type=TypeProto(tensor_type=TypeProto.Tensor(elem_type=kind)))
