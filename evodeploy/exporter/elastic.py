"""Making the number of tokens that each stage keeps an input of the graph.

A tracer takes sizes from shapes, not from values. So the network is traced with an extra input for each stage, whose
*length* is the number of tokens K. In the traced graph K is the shape of that input. The extra inputs are then replaced
by one input that *holds* the numbers: `keep`. The bounds of the trace are not part of the ONNX graph, which takes K
from 1 to N.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from evodeploy.elastic import ElasticStage
from evodeploy.models.deployed import Deployed
from evodeploy.specs import KEEP


class Slotted(nn.Module):
    """A deployed network with an extra input for each stage, whose length is the number of tokens that it keeps."""

    def __init__(self, deployed: Deployed) -> None:
        super().__init__()
        self.deployed = deployed

    def forward(self, images: Tensor, *slots: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of `Deployed`."""
        outputs: tuple[Tensor, ...] = self.deployed(images, [each.shape[0] for each in slots])
        return outputs


def slot_names(stages: tuple[ElasticStage, ...]) -> list[str]:
    """Return the names of the extra inputs of the traced network."""
    return [f"slots_{index}" for index in range(len(stages))]


def slots_for(stages: tuple[ElasticStage, ...]) -> tuple[list[Tensor], tuple[dict[int, Any], ...]]:
    """Return examples of the extra inputs, and the dynamic axes of their shapes.

    Tracers treat sizes of 0 and 1 as constants. So at least two tokens are kept in the examples, and the bounds leave
    at least two fast tokens.
    """
    examples = [torch.zeros(max(2, stage.tokens // 2)) for stage in stages]
    lengths = tuple({0: torch.export.Dim(f"kept_{i}", min=1, max=stage.tokens - 2)} for i, stage in enumerate(stages))
    return examples, lengths


def hold_keep(proto: onnx.ModelProto, stages: tuple[ElasticStage, ...]) -> None:
    """Replace the extra inputs of the graph by the input `keep`, int64 (stages,), in place."""
    graph, names = proto.graph, slot_names(stages)
    nodes = []
    for node in graph.node:
        if node.op_type == "Shape" and node.input[0] in names:
            stage = names.index(node.input[0])
            index = helper.make_tensor(f"{KEEP}_stage_{stage}", TensorProto.INT64, [1], [stage])
            graph.initializer.append(index)
            node = helper.make_node("Gather", [KEEP, index.name], list(node.output), f"{KEEP}_{stage}", axis=0)
        nodes.append(node)
    images = [value for value in graph.input if value.name not in names]
    graph.ClearField("input")
    graph.input.extend([*images, helper.make_tensor_value_info(KEEP, TensorProto.INT64, [len(stages)])])
    _copy_sizes(graph, nodes)
    graph.ClearField("value_info")  # its sizes count the representative token, and runtimes plan memory by them
    graph.ClearField("node")
    graph.node.extend(_used(nodes, [value.name for value in graph.output]))


def _copy_sizes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Make each Reshape copy its unchanged leading sizes from its input, instead of reading computed ones.

    A computed size would be wrong if a stage of Evo-LeViT keeps all tokens: there is no representative token then, but
    the trace counts one.
    """
    shapes = {value.name: _sizes(value) for value in (*graph.value_info, *graph.output, *graph.input)}
    makers = {node.output[0]: node for node in nodes}
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.dims == [1]}
    for node in nodes:
        maker = makers.get(node.input[1]) if node.op_type == "Reshape" else None
        before, after = shapes.get(node.input[0], []), shapes.get(node.output[0], [])
        if maker is None or maker.op_type != "Concat" or not before or len(maker.input) != len(after):
            continue
        same = next((i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), len(after))
        rest = [constants.get(name) for name in maker.input[same:]]
        sizes = [0] * same + [int(value.item()) for value in rest if value is not None]
        if len(sizes) == len(after):
            graph.initializer.append(numpy_helper.from_array(np.array(sizes, np.int64), f"{node.output[0]}_sizes"))
            node.input[1] = f"{node.output[0]}_sizes"
            node.ClearField("attribute")  # allowzero: a 0 must copy a size, not be one


def _sizes(value: onnx.ValueInfoProto) -> list[str | int]:
    return [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]


def _used(nodes: list[onnx.NodeProto], outputs: list[str]) -> list[onnx.NodeProto]:
    """Return those of `nodes`, in order, that `outputs` depend on."""
    wanted, used = set(outputs), []
    for node in reversed(nodes):
        if wanted & set(node.output):
            used.append(node)
            wanted |= set(node.input)
    return used[::-1]
