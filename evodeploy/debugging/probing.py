"""Measuring the values of two ONNX models on the same inputs, a few at a time, and reducing them to errors at once.

The values that two models share, by name, are compared in three runs: the reference; the other; and the other with the
reference's values as the inputs of each node, which shows the node's own error without the inherited one. The other's
selections are fixed: it keeps the tokens that the reference keeps, so that a different selection hides no later error.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

from evodeploy.arrays import Array
from evodeploy.compare.relative import relative_errors
from evodeploy.debugging.cutting import Graph, Part
from evodeploy.debugging.report import Flips
from evodeploy.specs import FP16_LARGEST

SELECTING = ("TopK", "ArgMax")

Feeds = Sequence[Mapping[str, Array]]  # inputs by name, batch by batch


@dataclass
class Measured:
    """One value on all images: sums and largest magnitudes, from which the errors follow."""

    difference: float = 0.0
    own: float = 0.0
    largest: float = 0.0
    squares: float = 0.0
    square_errors: float = 0.0
    elements: int = 0
    beyond: int = 0
    flushed: int = 0

    def add(self, expected: Array, got: Array, own: Array | None) -> None:
        """Add a batch: the `expected` value, the one the other model `got`, and the one its `own` node computes."""
        self.difference = _larger(self.difference, expected, got)
        if own is not None:
            self.own = _larger(self.own, expected, own)
        exact = expected.astype(np.float64)
        magnitude = np.abs(exact)
        self.largest = max(self.largest, float(magnitude.max(initial=0.0)))
        self.squares += float(np.square(exact).sum())
        self.square_errors += float(np.square(exact - got).sum())
        self.elements += exact.size
        self.beyond += int((magnitude > FP16_LARGEST).sum())
        self.flushed += int(((magnitude > 0) & (magnitude <= 2**-25)).sum())

    def relative(self, difference: float) -> float:
        """Return `difference` relative to the value's largest magnitude, or unchanged if that is 0."""
        return difference / (self.largest or 1.0)


@dataclass(frozen=True)
class Probed:
    """The measurements of two models: each shared value by name, and the selections in order."""

    values: Mapping[str, Measured] = field(default_factory=dict)
    flips: tuple[Flips, ...] = ()


def probed(reference: Graph, other: Graph, feeds: Feeds, budget: int) -> Probed:
    """Compare all floats that both graphs compute, on all `feeds`, in parts of about `budget` bytes each."""
    shared = reference.shared_with(other)
    floats = [name for name in shared if reference.types[name] == TensorProto.FLOAT]
    held = selections(reference, shared)
    values = {name: Measured() for name in floats}
    fixed = selected(reference, held, feeds)
    for names in _parts(reference, floats, feeds[0], budget):
        boundary = Part(other, shared, names).fed
        expect = Part(reference, (), sorted({*names, *boundary}))
        total, own = Part(other, held, names), Part(other, shared, names)
        for feed, chosen in zip(feeds, fixed, strict=True):
            expected = expect.run(feed)
            got = total.run({**feed, **chosen})
            alone = own.run({**feed, **expected})
            for name in names:
                if expected[name].shape == got[name].shape:
                    values[name].add(expected[name], got[name], alone[name])
    return Probed(values, _flips(reference, other, held, feeds, fixed))


def outputs_of(graph: Graph, names: Sequence[str], feeds: Feeds, held: Feeds) -> dict[str, Array]:
    """Return the outputs `names` of `graph` on all `feeds`, (N, …), with the selections fixed to those in `held`."""
    part = Part(graph, list(held[0]), names)
    runs = [part.run({**feed, **chosen}) for feed, chosen in zip(feeds, held, strict=True)]
    return {name: np.concatenate([np.atleast_1d(run[name]) for run in runs]) for name in names}


def selected(reference: Graph, names: Collection[str], feeds: Feeds) -> list[dict[str, Array]]:
    """Return the selections `names` of `reference`, batch by batch."""
    if not names:
        return [{} for _ in feeds]
    part = Part(reference, (), list(names))
    return [part.run(feed) for feed in feeds]


def selections(graph: Graph, shared: Collection[str]) -> dict[str, NodeProto]:
    """Map each shared value that holds selected positions to the node that selects them, in the graph's order."""
    return {
        name: node
        for node in graph.nodes
        if node.op_type in SELECTING
        for name in node.output
        if name in shared and graph.types[name] == TensorProto.INT64
    }


def _flips(
    reference: Graph, other: Graph, held: Mapping[str, NodeProto], feeds: Feeds, fixed: Feeds
) -> tuple[Flips, ...]:
    """Count the differences of the other's own selections `held` on all `feeds`, with earlier ones `fixed`."""
    if not held:
        return ()
    part = Part(other, list(held), list(held))
    kept = _kept(reference, held, feeds[0])
    counts: dict[str, list[int]] = {name: [] for name in held}
    for feed, chosen in zip(feeds, fixed, strict=True):
        got = part.run({**feed, **chosen})
        for name, node in held.items():
            for ours, theirs in zip(chosen[name], got[name], strict=True):
                if node.op_type == "TopK":  # the order does not matter
                    counts[name].append(len(np.setdiff1d(theirs[..., : kept[name]], ours[..., : kept[name]])))
                else:
                    counts[name].append(int((theirs != ours).sum()))
    return tuple(Flips(held[name].name or name, kept[name], tuple(counts[name])) for name in held)


def _kept(graph: Graph, held: Collection[str], feed: Mapping[str, Array]) -> dict[str, int]:
    """Return how many positions each selection keeps: TopK may sort all tokens, and a Slice after it take the first."""
    ends = {name: _first_slice(graph, name) for name in held}
    found = Part(graph, (), list(dict.fromkeys(ends.values()))).run(feed)
    return {name: found[end].shape[-1] if found[end].ndim > 1 else 1 for name, end in ends.items()}


def _first_slice(graph: Graph, positions: str) -> str:
    """Return the first slice of `positions`, followed through integer values only; `positions` if there is none."""
    followed = {positions}
    for node in graph.nodes:
        if followed.intersection(node.input) and graph.types.get(node.output[0]) == TensorProto.INT64:
            if node.op_type in ("Slice", "Split"):
                return str(node.output[0])
            followed.update(node.output)
    return positions


def _parts(graph: Graph, names: Sequence[str], feed: Mapping[str, Array], budget: int) -> Iterator[list[str]]:
    """Yield `names`, in the order of the graph, in lists whose values take up to `budget` bytes, or of one value."""
    sizes = _sizes(graph.model, feed)
    unknown = max((sizes[name] for name in names if name in sizes), default=0)
    part: list[str] = []
    used = 0
    for name in names:
        size = sizes.get(name, unknown)
        if part and used + size > budget:
            yield part
            part, used = [], 0
        part.append(name)
        used += size
    if part:
        yield part


def _sizes(model: ModelProto, feed: Mapping[str, Array]) -> dict[str, int]:
    """Return the bytes of each value in FP32 on `feed`, if shape inference finds its shape."""
    fixed = ModelProto()
    fixed.CopyFrom(model)
    del fixed.graph.value_info[:]
    for value in fixed.graph.input:
        if value.name in feed:
            value.CopyFrom(
                helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, feed[value.name].shape)
            )
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(fixed, data_prop=True).graph
    sizes = {}
    for value in (*inferred.value_info, *inferred.output):
        shape = value.type.tensor_type.shape
        if value.type.tensor_type.HasField("shape") and all(size.HasField("dim_value") for size in shape.dim):
            sizes[value.name] = 4 * math.prod(size.dim_value for size in shape.dim)
    return sizes


def image_errors(expected: Array, got: Array, scale: float | None = None) -> NDArray[np.float64]:
    """Return `relative_errors` (N,), with 0 for equal infinities, and infinity if only one value is NaN or infinite."""
    scale = float(np.abs(expected[np.isfinite(expected)]).max(initial=0.0)) if scale is None else scale
    alike = expected == got
    ours, theirs = (np.where(alike, 0, np.atleast_1d(each)) for each in (expected, got))
    errors = relative_errors(ours, theirs, scale)
    return np.where(np.isfinite(errors), errors, np.inf)


def _larger(before: float, expected: Array, got: Array) -> float:
    return max(before, float(image_errors(expected, got, 1.0).max())) if expected.size else before
