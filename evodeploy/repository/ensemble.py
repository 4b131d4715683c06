"""An ensemble around a packaged model, image files in and labels out: three more models of the repository.

    NAME-images         the ensemble, which clients use
    NAME-preprocess     files to the network's input; for an elastic one also `keep`, by default its own
    NAME-postprocess    the network's outputs to classes, their probabilities and their names

The last two run in Triton's Python backend, and are the classes in `python_models`.
"""

from __future__ import annotations

from typing import Any

from evodeploy.images import UPLOADED_BYTES, UPLOADED_PIXELS
from evodeploy.repository.config import Serving, dims_of, type_of
from evodeploy.repository.model import ServedModel
from evodeploy.repository.pbtxt import Message, Word, to_text
from evodeploy.repository.python_models import CLASSES, IMAGE, INFO, LARGEST, NAMES, PIXELS, PROBABILITIES, TOP
from evodeploy.specs import ModelInfo, TensorSpec

ENSEMBLE, BEFORE, AFTER = "images", "preprocess", "postprocess"
SUFFIXES = (ENSEMBLE, BEFORE, AFTER)
PLACEHOLDER = "placeholder.txt"

_MODEL = '''\
"""Run by Triton's Python backend; evodeploy must be installed in the Python of the server."""

from evodeploy.repository.python_models import {} as TritonPythonModel
'''
_EMPTY = "An ensemble has no file of its own; object stores keep no empty folder.\n"


def ensemble_files(model: ServedModel, serving: Serving, info: ModelInfo, top: int) -> dict[str, str]:
    """Return the text of each file of an ensemble that names `top` classes, by path below the folder of the repository.

    Raises the same errors as `config_text`.
    """
    before, after = f"{serving.name}-{BEFORE}", f"{serving.name}-{AFTER}"
    ensemble, version = f"{serving.name}-{ENSEMBLE}", serving.version
    files = {
        f"{ensemble}/config.pbtxt": to_text(_ensemble(model, serving, info, top)),
        f"{ensemble}/{version}/{PLACEHOLDER}": _EMPTY,
    }
    for name, config, made in (
        (before, _before(model, before), "Preprocess"),
        (after, _after(model, after, info, top), "Postprocess"),
    ):
        files[f"{name}/config.pbtxt"] = to_text(config)
        files[f"{name}/{version}/model.py"] = _MODEL.format(made)
        files[f"{name}/{version}/{INFO}"] = info.to_json() + "\n"
    return files


def _before(model: ServedModel, name: str) -> Message:
    outputs = [_tensor(model, spec) for spec in filter(None, (model.input, model.keep))]
    limits = {LARGEST: UPLOADED_BYTES, PIXELS: UPLOADED_PIXELS}
    return _python(model, name, limits) | {"input": _given(model), "output": outputs}


def _after(model: ServedModel, name: str, info: ModelInfo, top: int) -> Message:
    inputs = [_tensor(model, spec) for spec in _read(model, info)]
    return _python(model, name, {TOP: top}) | {"input": inputs, "output": _labels(model, top)}


def _python(model: ServedModel, name: str, parameters: dict[str, int]) -> dict[str, Any]:
    batches = {"dynamic_batching": {"max_queue_delay_microseconds": 0}} if model.batches else {}
    return {
        "name": name,
        "backend": "python",
        "max_batch_size": _most(model),
        "instance_group": {"kind": Word("KIND_CPU"), "count": 1},  # threads prepare the images of a batch
        "parameters": [{"key": key, "value": {"string_value": str(value)}} for key, value in parameters.items()],
    } | batches


def _ensemble(model: ServedModel, serving: Serving, info: ModelInfo, top: int) -> Message:
    name, read = serving.name, [spec.name for spec in _read(model, info)]
    given = [spec["name"] for spec in _given(model)]
    prepared = {spec.name: f"prepared_{spec.name}" for spec in filter(None, (model.input, model.keep))}
    steps = [
        _step(f"{name}-{BEFORE}", dict(zip(given, given, strict=True)), prepared),
        _step(name, prepared, {each: f"network_{each}" for each in read}),
        _step(
            f"{name}-{AFTER}",
            {each: f"network_{each}" for each in read},
            {each: each for each in (CLASSES, PROBABILITIES, NAMES)},
        ),
    ]
    return {
        "name": f"{name}-{ENSEMBLE}",
        "platform": "ensemble",
        "max_batch_size": _most(model),
        "input": _given(model),
        "output": _labels(model, top),
        "ensemble_scheduling": {"step": steps},
    }


def _step(model: str, inputs: dict[str, str], outputs: dict[str, str]) -> Message:
    return {
        "model_name": model,
        "model_version": -1,
        "input_map": [{"key": key, "value": value} for key, value in inputs.items()],
        "output_map": [{"key": key, "value": value} for key, value in outputs.items()],
    }


def _given(model: ServedModel) -> list[dict[str, Any]]:
    """Return the tensors that clients send: files and, for an elastic model, optionally the numbers of kept tokens."""
    files = dims_of(model, TensorSpec(IMAGE, "", (model.input.shape[0],))) or [1]
    tensors: list[dict[str, Any]] = [{"name": IMAGE, "data_type": Word("TYPE_STRING"), "dims": files}]
    if model.keep:
        tensors.append(_tensor(model, model.keep) | {"optional": True})
    return tensors


def _labels(model: ServedModel, top: int) -> list[Message]:
    dims = dims_of(model, TensorSpec(CLASSES, "", (model.input.shape[0], top)))
    kinds = {CLASSES: "TYPE_INT64", PROBABILITIES: "TYPE_FP32", NAMES: "TYPE_STRING"}
    return [{"name": name, "data_type": Word(kind), "dims": dims} for name, kind in kinds.items()]


def _read(model: ServedModel, info: ModelInfo) -> list[TensorSpec]:
    """Return the network's outputs from which labels are made."""
    names = ("probabilities", "classes") if info.top_k else (info.output,)
    return [spec for spec in model.outputs if spec.name in names]


def _tensor(model: ServedModel, spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "data_type": type_of(spec), "dims": dims_of(model, spec)}


def _most(model: ServedModel) -> int:
    return model.batches.max if model.batches else 0
