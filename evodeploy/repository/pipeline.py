"""Packaging of an ONNX file or an engine into a folder for Triton and Kubernetes."""

from __future__ import annotations

import os
from pathlib import Path

from evodeploy.arguments import checked
from evodeploy.errors import UsageError
from evodeploy.inference.answers import classes_to_name
from evodeploy.repository.config import Accelerator, Device, Serving
from evodeploy.repository.model import ServedModel, served_model
from evodeploy.repository.package import model_name, write_package
from evodeploy.repository.record import Packaged
from evodeploy.specs import NO_METADATA

WAIT, LONGEST = 0.0005, 100  # seconds that a request may wait for others: the default, and the maximum


@checked
def package(
    artefact: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    name: str | None = None,
    version: int = 1,
    device: Device | None = None,
    instances: int = 1,
    max_batch: int | None = None,
    max_wait: float | None = None,
    accelerator: Accelerator | None = None,
    ensemble: bool = False,
    top: int | None = None,
    force: bool = False,
) -> Packaged:
    """Write a model repository for Triton Inference Server, and Kubernetes manifests, into `folder`.

    Args:
        artefact: An ONNX file or a TensorRT engine.
        folder: Where `models/` and `manifests/` are made; other models in it stay.
        name: The model's name; by default from the file name.
        version: The folder of this version; other versions with the same inputs and outputs stay.
        device: Where an ONNX file runs, cpu by default; engines run on gpu.
        instances: Copies of the model on each device.
        max_batch: The largest batch; by default the engine's, or 32 for an ONNX file.
        max_wait: Seconds that a request may wait for others to fill a batch, 0.0005 by default.
        accelerator: What ONNX Runtime runs an ONNX file with: tensorrt on a gpu, openvino on a cpu.
        ensemble: Also write the ensemble NAME-images: the bytes of image files in, classes with names out.
        top: How many classes the ensemble names: by default 5, or all if there are fewer.
        force: Replace this version of an earlier package of this name.

    Raises UsageError if Triton cannot run the artefact as asked, or if files exist; BadFileError for a damaged file;
    MissingExtraError without PyYAML.
    """
    for what, value, most in (
        ("instances", instances, 1024),
        ("version", version, 10**9),
        ("max_batch", max_batch, None),
    ):
        if value is not None and not 1 <= value <= (most or value):
            raise UsageError(f"{what} is {value}, expected a number from 1 {f'to {most}' if most else 'up'}")
    if max_wait is not None and not 0 <= max_wait <= LONGEST:
        raise UsageError(f"max_wait is {max_wait}, expected 0 to {LONGEST} seconds")
    if top is not None and not ensemble:
        raise UsageError("--top is the number of classes that --ensemble names: add --ensemble, or leave --top out")
    path = Path(artefact)
    model = served_model(path, max_batch)
    if max_wait is not None and model.batches is None:
        raise UsageError(f"Triton does not join requests for {path} into batches: leave out --max-queue-delay-us")
    serving = Serving(
        name=model_name(path) if name is None else name,
        device=device or ("gpu" if model.backend == "tensorrt" else "cpu"),
        instances=instances,
        delay=round((WAIT if max_wait is None else max_wait) * 1e6),
        accelerator=accelerator,
        version=version,
        top=_classes(model, top) if ensemble else None,
    )
    return write_package(model, serving, Path(folder), force)


def _classes(model: ServedModel, top: int | None) -> int:
    """Return the number of classes that an ensemble names. Raises UsageError if the model has none."""
    if model.info is None:
        raise UsageError(f"{model.path} {NO_METADATA}: an ensemble needs to know how images are prepared")
    return classes_to_name(model.info, top)
