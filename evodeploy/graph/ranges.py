"""Measuring the range of an ONNX model's activations on images: for FP16 to hold, and for INT8 to cover."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from evodeploy.datasets.examples import spread
from evodeploy.datasets.sources import images_of
from evodeploy.engines.base import Array, batches
from evodeploy.engines.onnxruntime_engine import OnnxRuntimeEngine
from evodeploy.errors import UsageError, VerificationError
from evodeploy.graph.fixed_keep import with_keep
from evodeploy.graph.nodes import node_name
from evodeploy.locks import scratch
from evodeploy.onnx_files import info_of, write_onnx
from evodeploy.preprocess import as_input, pictures, random_pictures
from evodeploy.specs import FP16_LARGEST, NO_METADATA, EngineOptions

_log = logging.getLogger(__name__)

CHUNK = 8  # images at a time
MEASURED = 256  # the most images of a data source, evenly spread

_ROWS = "evodeploy_rows"  # the name of the axis to reduce over, if each channel is a column


@dataclass(frozen=True)
class LargestActivation:
    """The largest activation of a graph, its magnitude, and the number of images it was measured on."""

    name: str
    magnitude: float
    images: int

    def __str__(self) -> str:
        return f"'{self.name}' reaches {self.magnitude:.3g} on {self.images} images"


def largest_activation(model: onnx.ModelProto, folder: Path | None, kept: Collection[str] = ()) -> LargestActivation:
    """Return and log the largest activation of the FP32 `model` on the images of `folder`, or on random ones.

    Random images have full contrast, which gives the largest activations. Values that only the nodes named in `kept`
    write and read stay in FP32 and are ignored. Raises UsageError if the model's metadata does not state how images
    are prepared, and VerificationError as `check_fp16_range` does.
    """
    info = info_of(model)
    if info is None:
        raise UsageError(f"the ONNX {NO_METADATA}")
    images = random_pictures(info, 2) if folder is None else pictures(spread(images_of(folder), MEASURED), info)
    largest = check_fp16_range(model, as_input(images, info), kept)
    _log.info(f"largest activation: {largest}; FP16 holds {FP16_LARGEST:.0f}")
    return largest


def check_fp16_range(model: onnx.ModelProto, images: Array, kept: Collection[str] = ()) -> LargestActivation:
    """Return the largest activation of the FP32 `model` on `images`; raises VerificationError if FP16 cannot hold it.

    Values that only the nodes named in `kept` write and read are ignored.
    """
    nodes = [node for node in model.graph.node if node_name(node) not in kept]
    reduced = {name for node in nodes for name in (*node.input, *node.output)}
    ranges = {name: magnitude for name, magnitude in activation_ranges(model, images).items() if name in reduced}
    beyond = {name: magnitude for name, magnitude in ranges.items() if not magnitude <= FP16_LARGEST}
    name, magnitude = max((beyond or ranges).items(), key=lambda item: item[1])
    largest = LargestActivation(name, magnitude, len(images))
    if beyond:
        others = f" and {len(beyond) - 1} other activations by the same or less" if len(beyond) > 1 else ""
        raise VerificationError(
            f"the activation {largest}{others}, beyond FP16's {FP16_LARGEST:.0f}: use BF16 or FP32, or "
            "measure on your own --images; nothing was written"
        )
    return largest


def activation_ranges(model: onnx.ModelProto, images: Array) -> dict[str, float]:
    """Return the largest magnitude of every float32 value that `model` computes on `images`, by the value's name."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    made = {name for node in model.graph.node for name in node.output}  # value_info may describe weights, even old ones
    floats = [
        value.name
        for value in (*inferred.value_info, *inferred.output)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT and value.name in made
    ]
    return {name: float(largest) for name, largest in _measured(model, images, floats, by_channel=False).items()}


def channel_ranges(model: onnx.ModelProto, images: Array, values: Collection[str]) -> dict[str, Array]:
    """Return the largest magnitude on `images` of each channel, (C,), of each of `values`; channels are the last axis.

    `model` must have opset 18 or higher.
    """
    return _measured(model, images, sorted(values), by_channel=True)


def _measured(model: onnx.ModelProto, images: Array, names: list[str], *, by_channel: bool) -> dict[str, Array]:
    """Return the largest magnitudes, reduced inside the graph so that memory does not grow with the values."""
    info = info_of(model)
    # The copy has no metadata, which would describe other outputs. An elastic model keeps as many tokens as it can, so
    # that all of them pass through every layer.
    probe = with_keep(model, [stage.high for stage in info.elastic] if info else [])
    graph = probe.graph
    del graph.output[:]
    if by_channel:
        graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), _ROWS))
    for name in names:
        graph.node.append(helper.make_node("Abs", [name], [f"{name}_magnitude"]))
        reduced = [f"{name}_magnitude"]
        if by_channel:
            graph.node.append(helper.make_node("Flatten", reduced, [f"{name}_rows"], axis=-1))
            reduced = [f"{name}_rows", _ROWS]
        graph.node.append(helper.make_node("ReduceMax", reduced, [f"{name}_range"], keepdims=0))
        shape = (None,) if by_channel else ()
        graph.output.append(helper.make_tensor_value_info(f"{name}_range", TensorProto.FLOAT, shape))
    with scratch() as folder:
        path = folder / "ranges.onnx"
        write_onnx(probe, path)
        with OnnxRuntimeEngine(path, EngineOptions(device="cpu")) as engine:
            found = [engine.run(batch) for batch, _ in batches(engine, images, CHUNK)]
    return {name.removesuffix("_range"): np.max([part[name] for part in found], axis=0) for name in found[0]}
