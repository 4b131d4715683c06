"""Fixing the kept tokens of an elastic graph: everything computed from the input `keep` alone becomes constants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from evodeploy.errors import BadFileError
from evodeploy.specs import KEEP
from evodeploy.text import reason

if TYPE_CHECKING:
    import onnx

# The operators that compute numbers of tokens. None of these, unlike Range, makes many numbers from one.
_SIMPLE = {"Add", "Cast", "Div", "Gather", "Identity", "Max", "Min", "Mul", "Reshape", "Squeeze", "Sub", "Unsqueeze"}


def with_keep(model: onnx.ModelProto, keep: Sequence[int]) -> onnx.ModelProto:
    """Return a static copy of an elastic `model`, whose stages keep `keep` tokens in every run.

    Any other model is copied unchanged. The copy has no metadata. Raises BadFileError if a size cannot be computed.
    """
    import onnx

    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    del fixed.metadata_props[:]
    for index, value in enumerate(fixed.graph.input):
        if value.name == KEEP:
            del fixed.graph.input[index]
            fixed.graph.initializer.append(onnx.helper.make_tensor(KEEP, onnx.TensorProto.INT64, [len(keep)], keep))
            _fold(fixed)
            break
    return fixed


def _fold(model: onnx.ModelProto) -> None:
    """Replace nodes that read only `keep` and constants by their results: shape inference does not compute them."""
    from onnx import ModelProto, helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    graph = model.graph
    constant, followed = {tensor.name for tensor in graph.initializer}, {KEEP}
    folded, others = [], []
    for node in graph.node:
        simple = node.op_type in _SIMPLE and node.domain in ("", "ai.onnx")
        if simple and followed & set(node.input) and constant >= set(node.input):
            folded.append(node)
            constant |= set(node.output)
            followed |= set(node.output)
        else:
            others.append(node)
    if not folded:
        return
    part = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    part.graph.name = graph.name
    part.graph.node.extend(folded)
    used = {name for node in folded for name in node.input}
    part.graph.initializer.extend(tensor for tensor in graph.initializer if tensor.name in used)
    names = [name for node in folded for name in node.output]
    part.graph.output.extend(map(helper.make_empty_tensor_value_info, names))
    try:
        values = ReferenceEvaluator(part).run(None, {})
    except Exception as error:  # onnx's operators may raise any error
        raise BadFileError(f"the ONNX computes no size from its input '{KEEP}' ({reason(error)})") from error
    read = {name for node in others for name in node.input} | {value.name for value in graph.output}
    for index, tensor in reversed(list(enumerate(graph.initializer))):
        if tensor.name in used and tensor.name not in read:
            del graph.initializer[index]
    computed = [(name, value) for name, value in zip(names, values, strict=True) if name in read]
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in computed)
    graph.ClearField("node")
    graph.node.extend(others)
