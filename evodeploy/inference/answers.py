"""Conversion of images to an engine's input, and of its outputs to labels."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from evodeploy.arguments import check_type
from evodeploy.compare.selections import selections_from
from evodeploy.engines.base import Array, Engine, run_all
from evodeploy.engines.finite import PROBLEM, not_finite
from evodeploy.errors import RuntimeFailedError, UsageError
from evodeploy.images import ImageLike, open_image
from evodeploy.inference.records import Label, Prediction, Timing
from evodeploy.preprocess import prepare
from evodeploy.specs import ModelInfo


def check_classes(info: ModelInfo, top: int) -> None:
    """Raise UsageError if the artefact cannot name `top` classes."""
    if not info.num_classes:
        raise UsageError(
            f"{info.model} has no classifier: it gives features, not classes; in Python predict_logits returns them, "
            "of a server infer"
        )
    check_type("top", top, int)
    if top < 1:
        raise UsageError(f"top is {top}, expected 1 or more")
    if info.top_k is not None and top > info.top_k:
        raise UsageError(f"top is {top}, but the artefact gives {info.top_k} classes: export it with --top-k {top}")


def classes_to_name(info: ModelInfo, top: int | None) -> int:
    """Return the number of classes that an answer names: `top`, by default 5, or all if the model has fewer.

    Raises UsageError if `top` is larger than the number of classes.
    """
    classes = min(5, info.top_k or info.num_classes or 5) if top is None else top
    check_classes(info, classes)
    if info.num_classes and classes > info.num_classes:
        raise UsageError(f"top is {classes}, but {info.model} has {info.num_classes} classes: ask for no more")
    return classes


class Prepared(NamedTuple):
    """An image in the form that the engine takes, the seconds to prepare it, and its path if it was given as one."""

    image: Array
    seconds: float
    path: str | None


def prepared(image: ImageLike, info: ModelInfo) -> Prepared:
    """Prepare `image` as `info` requires. Raises the same errors as `open_image`."""
    began = time.perf_counter()
    array = prepare(open_image(image), info)
    path = os.fspath(image) if isinstance(image, (str, os.PathLike)) else None
    return Prepared(array, time.perf_counter() - began, path)


def answered(
    engine: Engine, info: ModelInfo, images: list[Prepared], *, top: int, ratios: tuple[float, ...]
) -> list[Prediction | RuntimeFailedError]:
    """Return the `top` classes of each of `images`, computed together with the keep ratios `ratios`."""
    began = time.perf_counter()
    keep = info.keep_of(ratios) if info.elastic else None
    outputs = run_all(engine, np.stack([each.image for each in images]), len(images), keep)
    seconds = time.perf_counter() - began
    answers = predictions_of(outputs, info, top, [each.seconds for each in images], seconds)
    return [
        replace(answer, path=each.path, keep_ratios=ratios) if isinstance(answer, Prediction) else answer
        for answer, each in zip(answers, images, strict=True)
    ]


def predictions_of(
    outputs: dict[str, Array], info: ModelInfo, top: int, decode: list[float], inference: float
) -> list[Prediction | RuntimeFailedError]:
    """Return a prediction for each image of a run that took `inference` seconds. `decode` has the seconds per image.

    If the outputs of an image are not finite numbers, it gets an error instead.
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
    """Return the largest probabilities (N, top) in descending order, and their classes (N, top); fewer if there are."""
    if info.top_k is not None:
        return outputs["probabilities"][:, :top], outputs["classes"][:, :top]
    probabilities = softmax(outputs[info.output])
    classes = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    return np.take_along_axis(probabilities, classes, axis=1), classes


def softmax(logits: Array) -> Array:
    """Return the probabilities along the last axis, or NaN if there are infinities."""
    with np.errstate(invalid="ignore"):
        shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
        probabilities: Array = shifted / shifted.sum(axis=-1, keepdims=True)
    return probabilities
