"""The two models to compare, and the inputs to compare them on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import ModelProto, ValueInfoProto, helper, numpy_helper

from evodeploy.arrays import Array
from evodeploy.datasets.sources import images_of
from evodeploy.engines.opener import kind_of_source
from evodeploy.errors import UsageError, needs
from evodeploy.graph.fixed_keep import with_keep
from evodeploy.graph.nodes import node_name
from evodeploy.images import Images
from evodeploy.onnx_files import fed_inputs, info_of, opset_of, read_onnx
from evodeploy.preprocess import as_input, pictures, random_pictures
from evodeploy.specs import FP16_LARGEST, NO_METADATA, ModelInfo, Precision

if TYPE_CHECKING:
    from torch import nn

CHUNK = 8  # images at a time if the batch is dynamic


def read_other(path: Path) -> ModelProto:
    """Read the ONNX file to compare; raises UsageError for another kind of file, and the errors of `read_onnx`."""
    if kind_of_source(path) != "onnx":
        raise UsageError(
            f"{path} is not an ONNX file: only an ONNX file, or a conversion with --precision, can be compared "
            "node by node"
        )
    return read_onnx(path)


def exported(source: Path | nn.Module, like: ModelProto | None, precision: Precision | None) -> ModelProto:
    """Return `source` as an FP32 ONNX model: an ONNX file is read, a network is traced with the settings of `like`."""
    if isinstance(source, Path) and kind_of_source(source) == "onnx":
        return read_onnx(source)
    if kind_of_source(source) != "checkpoint":
        raise UsageError(f"{source} is not a checkpoint or an ONNX file: the nodes of an engine cannot be compared")
    with needs("export"):
        from evodeploy.exporter.to_onnx import onnx_from_model, opset_for
        from evodeploy.models.checkpoint import load_checkpoint, load_checkpoint_like
    info = None if like is None else info_of(like)
    if like is None:
        return onnx_from_model(load_checkpoint(source), opset=opset_for(precision or "fp32", None))
    if info is None:
        raise UsageError(f"the ONNX {NO_METADATA}: compare it with another ONNX file")
    tokens = any(value.name.startswith("selected_") for value in like.graph.output)
    first = like.graph.input[0].type.tensor_type.shape.dim[0]
    return onnx_from_model(
        load_checkpoint_like(source, info), opset=opset_of(like), batch=first.dim_value or None, tokens=tokens
    )


def static(
    reference: ModelProto, other: ModelProto | None, keep_ratio: float | Sequence[float] | None
) -> tuple[ModelProto, ModelProto | None, ModelInfo | None]:
    """Return both as static models, elastic ones at `keep_ratio`, and the metadata of the reference.

    Raises UsageError if a ratio is given and neither is elastic, or if their metadata shows that they are different
    networks; InputError for a ratio that does not fit.
    """
    infos = [info_of(model) for model in (reference, other) if model is not None]
    elastic = next((info for info in infos if info is not None and info.elastic), None)
    if elastic is None and keep_ratio is not None:
        raise UsageError("neither model is elastic, so --keep-ratio changes nothing: leave it out")
    fixed = next((info.keep_ratios for info in infos if info is not None and not info.elastic), None)
    asked = fixed if keep_ratio is None else keep_ratio
    keep = elastic.keep_of(asked) if elastic else ()
    known = [info for info in infos if info is not None]
    _check_alike(
        [dataclasses.replace(each, keep_ratios=each.ratios_of(asked)) if each.elastic else each for each in known]
    )
    return with_keep(reference, keep), None if other is None else with_keep(other, keep), infos[0]


def _check_alike(infos: Sequence[ModelInfo]) -> None:
    """Raise UsageError if values of the networks have different shapes or meanings according to their metadata."""
    for fact in ("image_size", "keep_ratios", "selection", "stages", "fast_path", "num_classes"):
        found = [getattr(info, fact) for info in infos]
        if any(each != found[0] for each in found):
            raise UsageError(
                f"the {fact.replace('_', ' ')} of the reference is {found[0]} and of the other {found[1]}: they "
                "are different networks"
            )


def inputs_of(
    model: ModelProto,
    info: ModelInfo | None,
    images: Images | None,
    count: int,
    seed: int,
    like: ModelProto | None = None,
) -> tuple[list[dict[str, Array]], int]:
    """Return the inputs of `model`, batch by batch, and the number of images: `images`, by default random ones.

    Batches have the fixed size of `model`, or else of `like`. If there is no `info`, the inputs are normally
    distributed floats, bytes, or zeros and ones for other integers. Raises UsageError if images are given and the model
    has no metadata, or if the two have batches of different sizes.
    """
    inputs = fed_inputs(model)
    batches = [batch_of(each) for each in (model, like) if each is not None and batch_of(each)]
    if len(set(batches)) > 1:
        raise UsageError(f"the reference takes batches of {batches[0]} and the other of {batches[1]}: export one again")
    batch = batches[0] if batches else None
    if info is None:
        if images is not None:
            raise UsageError(f"the ONNX {NO_METADATA}; leave the images out to compare it on random numbers")
        generator = np.random.Generator(np.random.PCG64(seed))
        size = batch or count
        return [{value.name: _random(value, size, generator) for value in inputs}], size
    seen = random_pictures(info, count, seed) if images is None else pictures(images_of(images), info)
    prepared = as_input(seen, info)
    size = batch or min(CHUNK, len(prepared))
    rows = math.ceil(len(prepared) / size) * size if batch else len(prepared)
    filled = prepared[np.arange(rows) % len(prepared)]  # a fixed batch is filled with the first images, not counted
    return [{inputs[0].name: filled[start : start + size]} for start in range(0, rows, size)], len(prepared)


def beyond_range(model: ModelProto, precision: Precision) -> list[str]:
    """Return the names of the nodes with a weight that `precision` cannot hold."""
    largest = FP16_LARGEST if precision == "fp16" else math.inf
    wide = {
        tensor.name
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and _magnitude(numpy_helper.to_array(tensor)) > largest
    }
    return [node_name(node) for node in model.graph.node if wide.intersection(node.input)]


def _magnitude(values: Array) -> float:
    return float(np.abs(values[np.isfinite(values)]).max(initial=0.0))


def _random(value: ValueInfoProto, batch: int, generator: np.random.Generator) -> Array:
    shape = tuple(side or (batch if axis == 0 else 1) for axis, side in enumerate(_sides(value)))
    dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    if np.issubdtype(dtype, np.integer) or dtype == np.dtype(bool):
        high = 256 if dtype == np.dtype(np.uint8) else 2
        return generator.integers(0, high, shape).astype(dtype)
    return generator.standard_normal(shape).astype(np.float32)


def batch_of(model: ModelProto) -> int | None:
    """Return the fixed batch size of `model`; None if any batch is accepted."""
    return next((_sides(value)[:1] or [None] for value in fed_inputs(model)), [None])[0]


def _sides(value: ValueInfoProto) -> list[int | None]:
    return [side.dim_value or None for side in value.type.tensor_type.shape.dim]
