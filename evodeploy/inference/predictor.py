"""What application code uses: images in, labels out."""

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

BATCH = 32  # images run at a time, where nothing else is said

KeepRatio = float | Sequence[float] | None

_log = logging.getLogger(__name__)


class _Request(NamedTuple):
    """A submitted image, prepared, how many classes to name, and the keep ratios that it is computed at."""

    prepared: Prepared
    top: int
    ratios: tuple[float, ...]


class Predictor:
    """Prepares images as the model was trained on them, runs them through an engine, and names the classes.

    Threads may share one; close it, or use it in a `with` statement. `max_batch` and `max_wait` (seconds) are for
    `submit`.
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
        return f"<Predictor {self.info.model} {self.info.precision} with {self.engine.name} on {self.engine.device}>"

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
        """The `top` classes of one image, or of each in a sequence; see `images.open_image` for what an image may be.

        An array or a tensor of four axes is a batch and gives a list; for type checkers pass `list(batch)`.
        An elastic artefact keeps the share `keep_ratio` of its tokens, one for all stages or one for each, by default
        `info.keep_ratios`; InputError says where it cannot. Raises, for the first image that is none, UsageError for a
        missing file, BadFileError for a broken one, InputError for an array of another kind, RuntimeFailedError where
        the output is no number; `stream` continues with the others.
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
        """A prediction for each image, in their order, or a Failure where it cannot be read or its output is no number.

        `workers` threads decode while others compute, by default one for each core that the process may use; `images`
        is read as results are taken, and no more than three batches are in memory. `keep_ratio` is as in `predict`.
        Raises UsageError for a single path or file, InputError for what is no series, and what the engine raises.
        """
        if isinstance(images, (str, bytes, os.PathLike)):
            raise UsageError("stream takes several images, and got one: give a list, or call predict")
        if not isinstance(images, Iterable):
            raise InputError(f"images are a {type(images).__name__}, expected an image, or several")
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
            computers=1 if self.engine.device == "cpu" else 2,  # on a device the next is copied while one computes
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
        """Predict `images`, also whole folders, into the table `output`: .jsonl, .csv or .parquet.

        Or give each image with its answer to `output`, a function, as they come. `top` classes of each are named: by
        default 5, or all where there are fewer. The file appears once it is complete, and `force` replaces an earlier
        one. `progress` is called with the number of images done and of all. Raises as `stream` does, UsageError for
        what cannot be written, and BadFileError where no image has a prediction. `keep_ratio` is as in `predict`.
        """
        from evodeploy.inference.tables import write_predictions

        check_type("output", output, str | os.PathLike[str] | Callable[..., None])
        classes = classes_to_name(self.info, top)
        return write_predictions(self, images_of(images), output, classes, batch, keep_ratio, force, progress)

    def submit(self, image: ImageLike, top: int = 5, *, keep_ratio: KeepRatio = None) -> Future[Prediction]:
        """Return a future of one image's prediction, run together with what other callers submit at the same time.

        Of these, images of the same keep ratios are one run: `keep_ratio` is as in `predict`. Its result raises as
        `predict` does; a future that is cancelled in time is not run.
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
        """Logits (N, classes) for any number N of prepared images, as `engine.inputs[0]` says: see `preprocess`.

        Of a network without a classifier these are its features (N, C). Raises UsageError for an artefact that gives
        its best classes only, RuntimeFailedError where an output is no number.
        """
        if self.info.top_k is not None:
            raise UsageError(f"the artefact gives its {self.info.top_k} best classes, not logits: use predict")
        images = as_array(images)
        if not isinstance(images, np.ndarray):
            raise InputError(f"images are a {type(images).__name__}, expected a NumPy array or a tensor")
        if len(images) == 0:
            return np.empty((0, self.engine.outputs[0].shape[1] or 0), np.float32)
        outputs = run_all(self.engine, images, BATCH)
        bad = not_finite(outputs)
        if bad.any():
            raise RuntimeFailedError(f"image {int(bad.argmax())} of {len(images)}: {PROBLEM}")
        return outputs[self.info.output]

    def close(self) -> None:
        """Finish what was submitted, then close the engine."""
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
        """The keep ratios of each stage that `keep_ratio` means; raises InputError outside of the artefact's bounds."""
        self.info.keep_of(keep_ratio)
        return self.info.ratios_of(keep_ratio)

    def _submitted(self, submitted: tuple[ImageLike, int, tuple[float, ...]]) -> _Request:
        image, top, ratios = submitted
        return _Request(prepared(image, self.info), top, ratios)

    def _answered_each(self, requests: list[_Request]) -> list[Prediction | EvodeployError]:
        """Predictions of images that were submitted with tops and keep ratios of their own."""
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
