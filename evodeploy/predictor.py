"""What application code uses: images in, labels out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from evodeploy.artefacts import open_artefact
from evodeploy.engines.base import Array, Engine, run_all
from evodeploy.errors import BadFileError, UsageError
from evodeploy.preprocess import ImageLike, open_image, prepare
from evodeploy.specs import EngineOptions, ModelInfo, Precision

CHUNK = 32  # images prepared and run at a time


@dataclass(frozen=True)
class Label:
    """A class and how probable it is."""

    name: str
    index: int
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one image, best first."""

    labels: tuple[Label, ...]

    @property
    def label(self) -> Label:
        """The best one."""
        return self.labels[0]


class Predictor:
    """Prepares images as the model was trained on them, runs them through an engine, and names the classes."""

    def __init__(self, engine: Engine) -> None:
        if engine.info is None:
            raise BadFileError(
                "the artefact carries no evodeploy metadata: export its checkpoint with `evodeploy export`"
            )
        self.engine = engine
        self.info: ModelInfo = engine.info

    @overload
    def predict(self, images: ImageLike, top: int = 5) -> Prediction: ...  # type: ignore[overload-overlap]

    @overload
    def predict(self, images: Sequence[ImageLike], top: int = 5) -> list[Prediction]: ...

    def predict(self, images: ImageLike | Sequence[ImageLike], top: int = 5) -> Prediction | list[Prediction]:
        """The `top` classes of one image, or of each in a sequence.

        An image is a path, a Pillow image or a uint8 array (H, W) or (H, W, 3). Raises UsageError for a missing file,
        BadFileError for one that is no image, InputError for an array of another kind.
        """
        if not self.info.num_classes:
            raise UsageError(
                f"{self.info.model} has no classifier: it gives features, which predict_logits returns, not classes"
            )
        if top < 1:
            raise UsageError(f"top is {top}, expected 1 or more")
        if isinstance(images, (str, Path, Image.Image, np.ndarray)):
            return self.predict([images], top)[0]
        predictions: list[Prediction] = []
        for start in range(0, len(images), CHUNK):
            chunk = images[start : start + CHUNK]
            prepared = [prepare(open_image(image), self.info.image_size, self.info.preprocessing) for image in chunk]
            predictions += [self._labelled(row, top) for row in softmax(self.predict_logits(np.stack(prepared)))]
        return predictions

    def predict_logits(self, images: Array) -> NDArray[np.float32]:
        """Logits (N, classes) for any number N of prepared images, float32 (N, 3, size, size).

        Of a network without a classifier these are its features (N, C).
        """
        if len(images) == 0:
            return np.empty((0, self.engine.outputs[0].shape[1] or 0), np.float32)
        return run_all(self.engine, images, CHUNK)[self.info.output]

    def _labelled(self, probabilities: Array, top: int) -> Prediction:
        best = np.argsort(-probabilities, kind="stable")[:top]
        return Prediction(tuple(Label(self.info.label(int(i)), int(i), float(probabilities[i])) for i in best))

    def close(self) -> None:
        """Close the engine."""
        self.engine.close()

    def __enter__(self) -> Predictor:  # noqa: PYI034 - Self is in typing only from Python 3.11
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def softmax(logits: Array) -> Array:
    """Probabilities along the last axis."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: Array = shifted / shifted.sum(axis=-1, keepdims=True)
    return probabilities


def load(
    path: Path | str,
    engine: str | None = None,
    *,
    threads: int | None = None,
    device: str | None = None,
    precision: Precision | None = None,
    cuda_graph: bool = False,
    cache: Path | None = None,
) -> Predictor:
    """Open a checkpoint, an ONNX file or an engine for prediction.

    `engine` names what runs it (torch, torch-compile; onnxruntime, openvino; tensorrt), by default the first installed
    that can; the rest are its `EngineOptions`.
    """
    return Predictor(open_artefact(Path(path), engine, EngineOptions(threads, device, precision, cuda_graph, cache)))
