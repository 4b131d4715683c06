"""The interface for applications: images in, labels out."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from evodeploy.arguments import check_type
from evodeploy.arrays import DLPack, as_array
from evodeploy.datasets.sources import images_of
from evodeploy.engines.base import Array, Engine, run_all
from evodeploy.engines.finite import PROBLEM, not_finite
from evodeploy.errors import BadFileError, EvodeployError, InputError, RuntimeFailedError, UsageError
from evodeploy.images import ImageLike, Images, StoredImage
from evodeploy.inference.answers import Prepared, answered, check_classes, classes_to_name, prepared
from evodeploy.inference.batcher import Batcher, run_alike
from evodeploy.inference.pipeline import pipelined
from evodeploy.inference.records import Failure, Prediction, Written
from evodeploy.machine.cores import usable_cores
from evodeploy.specs import NO_METADATA, ModelInfo

BATCH = 32  # default number of images that run at a time

KeepRatio = float | Sequence[float] | None

_log = logging.getLogger(__name__)


class _Request(NamedTuple):
    """A submitted image, prepared, with the number of classes to name and the keep ratios to compute it with."""

    prepared: Prepared
    top: int
    ratios: tuple[float, ...]


class Predictor:
    """Prepares images as in the model's training, runs them through an engine, and names the classes.

    Threads may share a predictor. Close it, or use it in a `with` statement. `max_batch` and `max_wait` (seconds) apply
    to `submit`.
    """

    def __init__(self, engine: Engine, *, max_batch: int = BATCH, max_wait: float = 0.002) -> None:
        if engine.info is None:
            raise BadFileError(f"the artefact {NO_METADATA}")
        if max_batch < 1 or max_wait < 0:
            raise UsageError(f"max_batch is {max_batch} and max_wait {max_wait}, expected 1 or more and 0 or more")
        self.engine = engine
        self.info: ModelInfo = engine.info
        self._max_batch, self._max_wait = max_batch, max_wait
        self._lock = threading.Lock()
        self._batcher: Batcher[tuple[ImageLike, int, tuple[float, ...]], _Request, Prediction] | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<Predictor {self.info.model} {self.engine.precision} with {self.engine.name} on {self.engine.device}>"

    @overload
    def predict(  # type: ignore[overload-overlap]
        self, images: ImageLike, top: int = 5, *, keep_ratio: KeepRatio = None
    ) -> Prediction: ...

    @overload
    def predict(
        self, images: Sequence[ImageLike], top: int = 5, *, keep_ratio: KeepRatio = None
    ) -> list[Prediction]: ...

    def predict(
        self, images: ImageLike | Sequence[ImageLike], top: int = 5, *, keep_ratio: KeepRatio = None
    ) -> Prediction | list[Prediction]:
        """Return the `top` classes of one image, or of each in a sequence. `images.open_image` lists the valid images.

        An array or a tensor of four axes is a batch and returns a list; for type checkers pass `list(batch)`.
        An elastic artefact keeps the share `keep_ratio` of its tokens, one for all stages or one for each, by default
        `info.keep_ratios`; raises InputError if it cannot. The first image with a problem decides what else is raised:
        UsageError if its file is missing, BadFileError if it cannot be decoded, InputError for an unsuitable array,
        RuntimeFailedError if its output is not finite. `stream` continues with the other images instead.
        """
        if isinstance(images, DLPack):
            array = as_array(images)
            images = array if array.ndim < 4 else list(array)
        if isinstance(images, (str, bytes, os.PathLike, StoredImage, Image.Image, np.ndarray)):
            return self.predict([images], top, keep_ratio=keep_ratio)[0]
        predictions: list[Prediction] = []
        with closing(self.stream(images, top, keep_ratio=keep_ratio)) as results:
            for result in results:
                if isinstance(result, Failure):
                    raise result.error
                predictions.append(result)
        return predictions

    def stream(
        self,
        images: Iterable[ImageLike],
        top: int = 5,
        *,
        batch: int = BATCH,
        workers: int | None = None,
        keep_ratio: KeepRatio = None,
    ) -> Generator[Prediction | Failure, None, None]:
        """Yield a prediction for each image, in order, or a Failure if it cannot be read or its output is not finite.

        `workers` threads decode while other images are computed, by default one per core that the process may use.
        `images` is read as results are taken, and at most three batches are in memory. `keep_ratio` is as in `predict`.
        Raises UsageError for one path or file, InputError if `images` is not iterable, and the errors of the engine.
        """
        if isinstance(images, (str, bytes, os.PathLike)):
            raise UsageError("stream takes several images, and got one: give a list, or call predict")
        if not isinstance(images, Iterable):
            raise InputError(f"images are of type {type(images).__name__}, expected an image, or several")
        check_classes(self.info, top)
        ratios = self._ratios(keep_ratio)
        self._check_open()
        check_type("batch", batch, int)
        check_type("workers", workers, int | None)
        if batch < 1 or (workers is not None and workers < 1):
            raise UsageError(f"batch is {batch} and workers {workers}, expected 1 or more")
        return pipelined(
            images,
            partial(prepared, info=self.info),
            partial(answered, self.engine, self.info, top=top, ratios=ratios),
            Failure,
            batch=batch,
            preparers=workers or usable_cores(),
            computers=1 if self.engine.device == "cpu" else 2,  # on a GPU the next batch is copied while one computes
        )

    def write(
        self,
        images: Images,
        output: str | os.PathLike[str] | Callable[[ImageLike, Prediction | Failure], None],
        *,
        top: int | None = None,
        batch: int = BATCH,
        keep_ratio: KeepRatio = None,
        force: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Written:
        """Predict `images`, also whole folders, and write them to the table `output`: .jsonl, .csv or .parquet.

        If `output` is a function, it is called with each image and its answer as they come. `top` classes are named for
        each image: by default 5, or all if there are fewer. The file appears when it is complete, and `force` replaces
        an earlier one. `progress` is called with the number of images done and of all images. Raises the errors of
        `stream`, UsageError if the file cannot be written, and BadFileError if no image has a prediction. `keep_ratio`
        is the same as in `predict`.
        """
        from evodeploy.inference.tables import write_predictions

        check_type("output", output, str | os.PathLike[str] | Callable[..., None])
        classes = classes_to_name(self.info, top)
        return write_predictions(self, images_of(images), output, classes, batch, keep_ratio, force, progress)

    def submit(self, image: ImageLike, top: int = 5, *, keep_ratio: KeepRatio = None) -> Future[Prediction]:
        """Return a future prediction of one image, which runs together with those that others submit at the same time.

        Images with the same keep ratios run together; `keep_ratio` is the same as in `predict`. The future's result
        raises the same errors as `predict`. A future that is cancelled in time does not run.
        """
        check_classes(self.info, top)
        ratios = self._ratios(keep_ratio)
        with self._lock:
            self._check_open()
            if self._batcher is None:
                self._batcher = Batcher(
                    self._submitted,
                    self._answered_each,
                    preparers=usable_cores(),
                    largest=self._max_batch,
                    patience=self._max_wait,
                )
        return self._batcher.submit((image, top, ratios))

    def predict_logits(self, images: Array | DLPack) -> NDArray[np.float32]:
        """Return the logits (N, classes) of N prepared images in the form of `engine.inputs[0]`, see `preprocess`.

        For a network without a classifier these are the features (N, C). Raises UsageError if the artefact only returns
        its best classes, RuntimeFailedError if an output is not finite.
        """
        if self.info.top_k is not None:
            raise UsageError(f"the artefact gives its {self.info.top_k} best classes, not logits: use predict")
        images = as_array(images)
        if not isinstance(images, np.ndarray):
            raise InputError(f"images are of type {type(images).__name__}, expected a NumPy array or a tensor")
        if len(images) == 0:
            return np.empty((0, self.engine.outputs[0].shape[1] or 0), np.float32)
        outputs = run_all(self.engine, images, BATCH)
        bad = not_finite(outputs)
        if bad.any():
            raise RuntimeFailedError(f"image {int(bad.argmax())} of {len(images)}: {PROBLEM}")
        return outputs[self.info.output]

    def close(self) -> None:
        """Finish the submitted images, then close the engine."""
        with self._lock:
            self._closed = True
        if self._batcher is not None:
            self._batcher.close()
        self.engine.close()

    def __enter__(self) -> Predictor:  # noqa: PYI034 - Self is in typing only from Python 3.11
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError("the predictor is closed: open it again")

    def _ratios(self, keep_ratio: KeepRatio) -> tuple[float, ...]:
        """Return the keep ratio of each stage for `keep_ratio`. Raises InputError outside the artefact's bounds."""
        self.info.keep_of(keep_ratio)
        return self.info.ratios_of(keep_ratio)

    def _submitted(self, submitted: tuple[ImageLike, int, tuple[float, ...]]) -> _Request:
        image, top, ratios = submitted
        return _Request(prepared(image, self.info), top, ratios)

    def _answered_each(self, requests: list[_Request]) -> list[Prediction | EvodeployError]:
        """Return the predictions of submitted images, each with its own `top` and keep ratios."""
        return run_alike(requests, lambda request: request.ratios, self._answered_alike)

    def _answered_alike(
        self, requests: list[_Request], ratios: tuple[float, ...]
    ) -> list[Prediction | RuntimeFailedError]:
        images, most = [request.prepared for request in requests], max(request.top for request in requests)
        answers = answered(self.engine, self.info, images, top=most, ratios=ratios)
        return [
            replace(answer, labels=answer.labels[: request.top]) if isinstance(answer, Prediction) else answer
            for answer, request in zip(answers, requests, strict=True)
        ]
