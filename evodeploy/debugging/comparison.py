"""Comparing two models on the same inputs, and proposing a better conversion."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, TensorProto

from evodeploy.arrays import Array
from evodeploy.debugging.cutting import Graph
from evodeploy.debugging.emulation import emulated
from evodeploy.debugging.probing import Feeds, image_errors, outputs_of, probed, selected, selections
from evodeploy.debugging.repair import proposed
from evodeploy.debugging.report import DebugReport, OutputError, Proposal, first_cause
from evodeploy.debugging.tracing import node_errors, suspects, unshared
from evodeploy.errors import UsageError
from evodeploy.graph.changed import Changed
from evodeploy.graph.linear import linear_layers
from evodeploy.graph.nodes import MOVING, node_name
from evodeploy.graph.precision import reduced_from_onnx
from evodeploy.graph.quantization import quantized_from_onnx
from evodeploy.specs import Precision

_log = logging.getLogger(__name__)

Convert = Callable[[Sequence[str]], Changed]  # converts the reference and keeps these nodes in FP32


@dataclass(frozen=True)
class Question:
    """The comparison of `other` with `reference` on `feeds`, by the output `named`, else by all that both have."""

    reference: ModelProto
    other: ModelProto
    feeds: Feeds
    images: int
    named: str | None
    tolerance: float
    budget: int


def compare(asked: Question, names: tuple[str, str], *, random: bool) -> DebugReport:
    """Return the report on the reference and the other, called `names`, without a proposal.

    Raises UsageError if their inputs differ, or if they have no outputs or values in common.
    """
    reference, other = emulated(asked.reference), emulated(asked.other)
    if set(reference.inputs) != set(other.inputs):
        ours, theirs = (", ".join(sorted(graph.inputs)) for graph in (reference, other))
        raise UsageError(f"the reference takes {ours} and the other {theirs}: they are different models")
    _log.info(f"comparing {len(reference.shared_with(other))} values on {asked.images} images")
    found = probed(reference, other, asked.feeds, asked.budget)
    nodes = node_errors(reference, found)
    if not nodes:
        raise UsageError("the two have no float value with the same name and shape, so no node can be compared")
    return DebugReport(
        reference=names[0],
        other=names[1],
        images=asked.images,
        random=random,
        tolerance=asked.tolerance,
        outputs=_output_errors(asked, reference, other),
        nodes=nodes,
        begins=first_cause(nodes, asked.tolerance),
        selections=tuple(dataclasses.replace(one, flipped=one.flipped[: asked.images]) for one in found.flips),
        only_in_reference=unshared(reference, found),
    )


def repaired(asked: Question, report: DebugReport, precision: Precision, always: Sequence[str]) -> Proposal | None:
    """Return the nodes to keep in FP32 when the reference is converted to `precision`, including `always`."""
    convert = converter(asked.reference, precision, asked.feeds)
    reference = emulated(asked.reference)
    suspected = suspects(reference, report.nodes)
    if precision in ("int8", "fp8"):
        open_to = {node_name(layer.node) for layer in linear_layers(asked.reference.graph)}
    else:
        kept = convert(always).kept
        open_to = {node_name(node) for node in reference.nodes if node.op_type not in MOVING} - set(kept)

    likely = [name for name in suspected if name in open_to]
    if precision in ("int8", "fp8") and open_to <= set(likely):
        likely.pop()  # an 8-bit file needs at least one quantized layer

    def error(keep: Sequence[str]) -> float:
        outputs = _output_errors(asked, reference, emulated(convert(keep).model))
        return max(output.error for output in outputs)

    _log.info(f"looking for the nodes to keep in FP32 for an error of {asked.tolerance:.2g} or less")
    return proposed(precision, error, asked.tolerance, likely, always)


def converter(reference: ModelProto, precision: Precision, feeds: Feeds) -> Convert:
    """Return a function that converts `reference` to `precision`; 8-bit types are calibrated on `feeds`."""
    if precision == "fp16" or precision == "bf16":
        return functools.partial(reduced_from_onnx, reference, precision)
    assert precision != "fp32"  # the caller converts nothing then
    name = reference.graph.input[0].name
    images: Array = np.concatenate([feed[name] for feed in feeds])
    return functools.partial(quantized_from_onnx, reference, images, precision)


def _output_errors(asked: Question, reference: Graph, other: Graph) -> tuple[OutputError, ...]:
    names = [name for name in reference.outputs if name in other.outputs]
    names = [name for name in names if reference.types.get(name) == other.types.get(name) == TensorProto.FLOAT]
    if not names:
        raise UsageError(f"the two share none of the reference's outputs ({', '.join(reference.outputs)})")
    if asked.named in names:
        names = [asked.named]
    chosen = selected(reference, selections(reference, reference.shared_with(other)), asked.feeds)
    expected = outputs_of(reference, names, asked.feeds, chosen)
    got = outputs_of(other, names, asked.feeds, chosen)
    errors = {name: image_errors(expected[name], got[name])[: asked.images] for name in names}
    return tuple(OutputError(name, tuple(map(float, each))) for name, each in errors.items())
