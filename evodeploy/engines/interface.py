"""Checks of a network's inputs and outputs against what an engine can run and against its metadata."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from evodeploy.errors import BadFileError
from evodeploy.schema import SchemaError
from evodeploy.spec_rules import DTYPE, TENSOR_SPEC
from evodeploy.specs import KEEP, BatchRange, ModelInfo, TensorSpec


def batch_range(inputs: tuple[TensorSpec, ...]) -> BatchRange:
    """Return the range of batch sizes: any if the first axis is dynamic, else the fixed size."""
    fixed = inputs[0].shape[0]
    return BatchRange() if fixed is None else BatchRange(fixed, fixed)


def check_interface(
    path: Path, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], info: ModelInfo | None
) -> None:
    """Raise BadFileError if the network in `path` does not map one batch to arrays, or contradicts `info`."""
    stated = info.inputs if info else ()
    if len(inputs) != (len(stated) or 1) or not outputs:
        wanted = f"one batch of images{f', `{KEEP}`' if len(stated) > 1 else ''} and an output"
        raise BadFileError(f"{path} has {len(inputs)} inputs and {len(outputs)} outputs, expected {wanted}")
    try:
        TENSOR_SPEC(dataclasses.asdict(inputs[0]), "the input")
        for spec in outputs:
            DTYPE(spec.dtype, f"the type of output '{spec.name}'")
    except SchemaError as error:
        raise BadFileError(f"{path} is not a network of images: {error}") from error
    if info is None:
        return
    for taken, expected in zip(inputs, stated, strict=True):
        sizes = zip(taken.shape[1:], expected.shape[1:], strict=False)
        fits = len(taken.shape) == len(expected.shape) and all(a in (None, b) for a, b in sizes)
        if expected.name == KEEP:
            fits = taken == expected
        if not fits or taken.dtype != expected.dtype:
            raise BadFileError(
                f"{path} takes {taken}, but evodeploy's metadata in it says {expected}: export the model again"
            )
    given, classes = outputs[0].shape[-1] if outputs[0].shape else None, info.top_k or info.num_classes
    if classes and given not in (None, classes):
        raise BadFileError(
            f"{path} gives {given} classes, but evodeploy's metadata in it says {classes}: export the model again"
        )
