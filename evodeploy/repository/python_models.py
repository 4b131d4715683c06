"""The models that Triton's Python backend runs in an ensemble: image files to tensors, and outputs to labels.

In a repository, `NAME-preprocess/1/model.py` imports `Preprocess` as the `TritonPythonModel` that the backend looks for
(https://github.com/triton-inference-server/python_backend). `model.json` next to it is the model's `ModelInfo`. The
code is the same as in `Predictor`, so the answers are the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from evodeploy.arrays import Array
from evodeploy.engines.finite import PROBLEM, not_finite
from evodeploy.errors import BadFileError, EvodeployError, InputError, RuntimeFailedError
from evodeploy.inference.answers import ranked
from evodeploy.machine.cores import usable_cores
from evodeploy.preprocess import prepare_upload
from evodeploy.spec_rules import read_model_info
from evodeploy.specs import KEEP
from evodeploy.text import brief

IMAGE = "image"  # the bytes of a file
CLASSES, PROBABILITIES, NAMES = "classes", "probabilities", "names"
INFO = "model.json"
LARGEST, PIXELS, TOP = "max_bytes", "max_pixels", "top"  # parameters of the configuration


class _Model:
    """The common part of both: Triton calls `initialize` once, and `execute` with one or more requests at a time."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the model's facts and the parameters of its configuration."""
        import triton_python_backend_utils as backend  # exists only inside Triton

        self._backend: Any = backend
        info = Path(args["model_repository"], args["model_version"], INFO)
        self._info = read_model_info(info.read_text(encoding="utf-8"))
        parameters = json.loads(args["model_config"])["parameters"]
        self._parameters = {name: int(value["string_value"]) for name, value in parameters.items()}

    def _answer(self, outputs: Callable[[], dict[str, Array]]) -> Any:
        """Return a response with the tensors from `outputs`, or with its error as one sentence."""
        backend = self._backend
        try:
            tensors = [backend.Tensor(name, array) for name, array in outputs().items()]
        except EvodeployError as error:
            broken = isinstance(error, RuntimeFailedError)
            code = backend.TritonError.INTERNAL if broken else backend.TritonError.INVALID_ARG
            return backend.InferenceResponse(error=backend.TritonError(brief(str(error)), code))
        return backend.InferenceResponse(output_tensors=tensors)


class Preprocess(_Model):
    """Converts `image`, files (B, 1) or (B,), to the network's inputs: `images` and, for an elastic one, `keep`.

    Each request has its own `keep`, or the artefact's default. The parameters limit the bytes and pixels of a file.
    Requests are prepared by one thread for each core that the process may use.
    """

    def initialize(self, args: dict[str, str]) -> None:
        """Also start the threads."""
        super().initialize(args)
        self._threads = ThreadPoolExecutor(usable_cores())

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Return a response for each request, with an error if a file is not an image or `keep` is out of bounds."""
        files = [self._backend.get_input_tensor_by_name(request, IMAGE).as_numpy().ravel() for request in requests]
        begun = [[self._threads.submit(self._prepared, body) for body in each] for each in files]
        return [
            self._answer(partial(self._outputs, request, images))
            for request, images in zip(requests, begun, strict=True)
        ]

    def finalize(self) -> None:
        """Stop the threads."""
        self._threads.shutdown()

    def _prepared(self, body: bytes) -> Array:
        largest = self._parameters[LARGEST]
        if len(body) > largest:
            raise BadFileError(f"the image has {len(body)} bytes, expected {largest} at most")
        return prepare_upload(body, self._info, self._parameters[PIXELS])

    def _outputs(self, request: Any, images: Sequence[Future[Array]]) -> dict[str, Array]:
        if not images:
            raise InputError("the request has no images, expected one or more")
        outputs = {self._info.input.name: np.stack([_result(each, i, len(images)) for i, each in enumerate(images)])}
        if self._info.elastic:
            keep = self._backend.get_input_tensor_by_name(request, KEEP)
            kept = self._info.keep_of() if keep is None else self._info.checked(keep.as_numpy().ravel().tolist())
            outputs[KEEP] = np.array(kept, np.int64)
        return outputs


class Postprocess(_Model):
    """Converts the network's outputs (B, …) to the best `classes` of each image, their `probabilities` and `names`."""

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Return a response for each request, with an error if its numbers are not finite."""
        return [self._answer(partial(self._outputs, request)) for request in requests]

    def _outputs(self, request: Any) -> dict[str, Array]:
        outputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        bad = not_finite(outputs)
        if bad.any():
            raise RuntimeFailedError(f"image {int(bad.argmax())} of {len(bad)}: {PROBLEM}")
        probabilities, classes = ranked(outputs, self._info, self._parameters[TOP])
        names = [
            [self._info.label(index).encode("utf-8", "backslashreplace") for index in each] for each in classes.tolist()
        ]
        return {
            CLASSES: classes.astype(np.int64),
            PROBABILITIES: probabilities.astype(np.float32),
            NAMES: np.array(names, np.object_),
        }


def _result(image: Future[Array], number: int, count: int) -> Array:
    """Return the prepared image. If there are several, an error names the one that it is about."""
    try:
        return image.result()
    except BadFileError as error:
        raise error if count == 1 else BadFileError(f"image {number} of {count}: {error}") from error
