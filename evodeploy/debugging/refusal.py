"""Building parts of an ONNX model with TensorRT until the smallest refused part is found."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper

from evodeploy.arrays import Array
from evodeploy.builder.refusal import refusal
from evodeploy.debugging.bisection import Bisection
from evodeploy.debugging.cutting import Graph, Part
from evodeploy.debugging.emulation import emulated
from evodeploy.debugging.sources import batch_of, inputs_of
from evodeploy.engines.tensorrt.flavour import load_flavour
from evodeploy.graph.attention import with_wide_keys
from evodeploy.graph.fixed_keep import with_keep
from evodeploy.graph.keeping import has_fp32_products
from evodeploy.graph.nodes import node_name
from evodeploy.graph.precision import reduced_from_onnx
from evodeploy.onnx_files import info_of, precision_of, read_onnx, write_onnx
from evodeploy.specs import Reduced

_log = logging.getLogger(__name__)

CONSTANT = 64  # the most integers of a value that is treated as a shape


def refused(
    source: Path, output: Path, precision: Reduced | None, runtime: str | None, asked: tuple[str, ...], batch: int
) -> Bisection:
    """Write the smallest refused part of `source` to `output`; raises the same errors as `bisect`."""
    read = read_onnx(source)
    info = info_of(read)
    model = with_keep(with_wide_keys(read).model, info.keep_of() if info else ())
    if precision is not None:
        model = reduced_from_onnx(model, precision).model
    flavour = load_flavour(runtime)
    held = precision_of(model)
    targets = flavour.resolve_targets(asked, "fp32" if held == "fp16" and has_fp32_products(model) else held)
    parts = _Parts(model, batch)
    reasons: dict[tuple[str, ...], str] = {}  # by the values of each part; empty if it was built

    def reason(nodes: Sequence[NodeProto]) -> str:
        key = tuple(node.output[0] for node in nodes)
        if key not in reasons:
            reasons[key] = refusal(parts.model(nodes), flavour, targets)
            _log.info(f"  nodes: {len(nodes)}, {reasons[key] or 'built'}")
        return reasons[key]

    _log.info(f"building parts of {source} with {flavour}")
    nodes = list(model.graph.node)
    if not reason(nodes):
        return Bisection(source, str(flavour), None, (), "", len(reasons), parts.batch)
    smallest = _smallest(nodes, lambda some: bool(reason(some)))
    write_onnx(parts.model(smallest), output)
    why = reason(smallest)
    return Bisection(source, str(flavour), output, tuple(map(node_name, smallest)), why, len(reasons), parts.batch)


def _smallest(nodes: Sequence[NodeProto], refused: Callable[[Sequence[NodeProto]], bool]) -> list[NodeProto]:
    """Return the shortest refused run of the refused `nodes` that ends first, without nodes its last does not need."""
    end = _first(len(nodes), lambda count: refused(nodes[:count]))
    length = _first(end, lambda count: refused(nodes[end - count : end]))
    run = list(nodes[end - length : end])
    needed = set(run[-1].output)
    for node in reversed(run):
        if needed.intersection(node.output):
            needed.update(node.input)
    lean = [node for node in run if needed.intersection(node.output)]
    return lean if len(lean) < len(run) and refused(lean) else run


def _first(most: int, holds: Callable[[int], bool]) -> int:
    """Return the least count for which `holds` is true, up to `most`, for which it is; `holds` must be monotonic."""
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


class _Parts:
    """Models of subsets of the nodes of `model`, whose inputs have the shapes that they have in one run.

    The run is on `batch` images, or on the model's fixed batch.
    """

    def __init__(self, model: ModelProto, batch: int) -> None:
        info = info_of(model)
        self._model = model
        self._types = Graph(model).types
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}
        feeds, _ = inputs_of(model, info, None, batch, 0)
        fixed = batch_of(model)
        feed = feeds[0] if fixed else {name: np.concatenate([each[name] for each in feeds]) for name in feeds[0]}
        self.batch = fixed or batch
        rounded = emulated(model)
        names = [name for name in rounded.makers if name in self._types]
        self._values: Mapping[str, Array] = feed | Part(rounded, (), names).run(feed)

    def model(self, nodes: Sequence[NodeProto]) -> ModelProto:
        """Return a model of `nodes`, in order. Its outputs are the values that other nodes read, or that none reads."""
        model = self._model
        made = {name for node in nodes for name in node.output if name}
        read = list(dict.fromkeys(name for node in nodes for name in node.input if name and name not in made))
        inside = {name for node in nodes for name in node.input}
        chosen = {id(node) for node in nodes}
        outside = {name for node in model.graph.node if id(node) not in chosen for name in node.input}
        outside.update(value.name for value in model.graph.output)
        part = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
        part.graph.name = "refused"
        part.graph.node.extend(nodes)
        for name in read:
            if name in self._weights:
                part.graph.initializer.append(self._weights[name])
            elif self._decides(name):
                part.graph.initializer.append(numpy_helper.from_array(np.asarray(self._values[name]), name))
            else:
                part.graph.input.append(self._value(name))
        outputs = [name for name in made if name in self._types and (name in outside or name not in inside)]
        part.graph.output.extend(self._value(name) for name in sorted(outputs))
        return part

    def _decides(self, name: str) -> bool:
        value = self._values[name]
        return bool(np.issubdtype(value.dtype, np.integer) and value.ndim <= 1 and value.size <= CONSTANT)

    def _value(self, name: str) -> object:
        return helper.make_tensor_value_info(name, self._types[name], self._values[name].shape)
