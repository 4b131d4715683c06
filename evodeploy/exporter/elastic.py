"""How the tokens that stages keep become an input of the graph.

A tracer takes sizes from shapes, not from values. So the network is traced with an extra input for each stage, whose
*length* is the number of tokens K. In the graph that comes of it K is the shape of that input, and is replaced by one
input that *holds* the numbers: `keep`. The bounds of the trace do not survive in ONNX: the graph takes K from 1 to N.
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
    """A deployed network that keeps as many tokens in each stage as its further inputs are long."""

    def __init__(self, deployed: Deployed) -> None:
        super().__init__()
        self.deployed = deployed

    def forward(self, images: Tensor, *slots: Tensor) -> tuple[Tensor, ...]:
        """Return what `Deployed` gives."""
        outputs: tuple[Tensor, ...] = self.deployed(images, [each.shape[0] for each in slots])
        return outputs


def slot_names(stages: tuple[ElasticStage, ...]) -> list[str]:
    """Return what the further inputs are called while the network is traced."""
    return [f"slots_{index}" for index in range(len(stages))]


def slots_for(stages: tuple[ElasticStage, ...]) -> tuple[list[Tensor], tuple[dict[int, Any], ...]]:
    """Examples of the further inputs, and what of their shapes is dynamic.

    Two or more tokens stay fast in the trace, so that their number is known to be no 0 or 1, which tracers take for
    constants; and two or more are kept in the examples.
    """
    examples = [torch.zeros(max(2, stage.tokens // 2)) for stage in stages]
    lengths = tuple({0: torch.export.Dim(f"kept_{i}", min=1, max=stage.tokens - 2)} for i, stage in enumerate(stages))
    return examples, lengths


def hold_keep(proto: onnx.ModelProto, stages: tuple[ElasticStage, ...]) -> None:
    """Put the input `keep`, int64 (stages,), in the place of the further inputs; the graph is changed."""
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
    graph.ClearField("value_info")  # the trace's sizes count that token too, and runtimes plan memory by them
    graph.ClearField("node")
    graph.node.extend(_used(nodes, [value.name for value in graph.output]))


def _copy_sizes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Let each Reshape copy the sizes that it leaves as they are, in front, instead of having them computed.

    A computed one would be wrong where a stage of Evo-LeViT keeps all tokens, and has no representative one: the trace
    counts it.
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
            node.ClearField("attribute")  # allowzero: a zero is to be copied, not to be one


def _sizes(value: onnx.ValueInfoProto) -> list[str | int]:
    return [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]


def _used(nodes: list[onnx.NodeProto], outputs: list[str]) -> list[onnx.NodeProto]:
    """Return the `nodes`, in their order, that `outputs` come from."""
    wanted, used = set(outputs), []
    for node in reversed(nodes):
        if wanted & set(node.output):
            used.append(node)
            wanted |= set(node.input)
    return used[::-1]
