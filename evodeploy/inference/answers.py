"""From an engine's outputs to labels."""

from __future__ import annotations

import numpy as np

from evodeploy.compare.selections import selections_from
from evodeploy.engines.base import Array
from evodeploy.engines.finite import PROBLEM, not_finite
from evodeploy.errors import RuntimeFailedError, UsageError
from evodeploy.inference.records import Label, Prediction, Timing
from evodeploy.specs import ModelInfo


def check_classes(info: ModelInfo, top: int) -> None:
    """Raise UsageError where the artefact names fewer classes."""
    if not info.num_classes:
        raise UsageError(
            f"{info.model} has no classifier: it gives features, which predict_logits returns, not classes"
        )
    if top < 1:
        raise UsageError(f"top is {top}, expected 1 or more")
    if info.top_k is not None and top > info.top_k:
        raise UsageError(f"top is {top}, but the artefact gives {info.top_k} classes: export it with --top-k {top}")


def classes_to_name(info: ModelInfo, top: int | None) -> int:
    """How many classes an answer names: `top`, which is 5 by default, or all where the model has fewer.

    Raises UsageError for more than there are.
    """
    classes = min(5, info.top_k or info.num_classes or 5) if top is None else top
    check_classes(info, classes)
    if info.num_classes and classes > info.num_classes:
        raise UsageError(f"top is {classes}, but {info.model} has {info.num_classes} classes: ask for no more")
    return classes


def predictions_of(
    outputs: dict[str, Array], info: ModelInfo, top: int, decode: list[float], inference: float
) -> list[Prediction | RuntimeFailedError]:
    """A prediction for each image of a run that took `inference` seconds, after each image's own of `decode`.

    An image whose outputs are no numbers has an error instead.
    """
    probabilities, classes = ranked(outputs, info, top)
    bad = not_finite(outputs)
    selections = selections_from(outputs, info)
    predictions: list[Prediction | RuntimeFailedError] = []
    for i, seconds in enumerate(decode):
        if bad[i]:
            predictions.append(RuntimeFailedError(PROBLEM))
            continue
        labels = zip(classes[i].tolist(), probabilities[i].tolist(), strict=True)
        predictions.append(
            Prediction(
                tuple(Label(info.label(index), index, probability) for index, probability in labels),
                Timing(seconds, inference, len(decode)),
                tuple(tuple(each.positions[i].tolist()) for each in selections) if selections else None,
                sides=tuple(each.side for each in selections),
                info=info,
            )
        )
    return predictions


def ranked(outputs: dict[str, Array], info: ModelInfo, top: int) -> tuple[Array, Array]:
    """Probabilities (N, top), largest first, and their classes (N, top), fewer where the model has no more."""
    if info.top_k is not None:
        return outputs["probabilities"][:, :top], outputs["classes"][:, :top]
    probabilities = softmax(outputs[info.output])
    classes = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    return np.take_along_axis(probabilities, classes, axis=1), classes


def softmax(logits: Array) -> Array:
    """Probabilities along the last axis; NaN where there are infinities."""
    with np.errstate(invalid="ignore"):
        shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
        probabilities: Array = shifted / shifted.sum(axis=-1, keepdims=True)
    return probabilities
