"""The `config.pbtxt` of a served model."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from evodeploy.errors import UsageError
from evodeploy.repository.model import ServedModel
from evodeploy.repository.pbtxt import Message, Word, to_text
from evodeploy.specs import KEEP, METADATA_KEY, TensorSpec
from evodeploy.text import brief

Device = Literal["cpu", "gpu"]
Accelerator = Literal["tensorrt", "openvino"]

MODELS = "models"  # the folder of the repository
LABELS = "labels.txt"

_TYPES = {
    "float32": "TYPE_FP32",
    "float16": "TYPE_FP16",
    "bfloat16": "TYPE_BF16",
    "int64": "TYPE_INT64",
    "int32": "TYPE_INT32",
    "int8": "TYPE_INT8",
    "uint8": "TYPE_UINT8",
    "bool": "TYPE_BOOL",
}
_ACCELERATORS: dict[Accelerator, Device] = {"tensorrt": "gpu", "openvino": "cpu"}


@dataclass(frozen=True)
class Serving:
    """How a model is served. `delay` is the time in microseconds that a request may wait for others to fill a batch.

    `accelerator` is what ONNX Runtime runs the network with: TensorRT on a GPU, OpenVINO on a CPU. `version` is the
    folder of the model's file. `top` is the number of classes that an ensemble names, or None if there is no ensemble.
    """

    name: str
    device: Device
    instances: int = 1
    delay: int = 500
    accelerator: Accelerator | None = None
    version: int = 1
    top: int | None = None


def config_text(model: ServedModel, serving: Serving) -> str:
    """Return the configuration as text.

    Raises UsageError for a device or accelerator that the backend lacks, or a tensor type that Triton lacks.
    """
    _check(model, serving)
    return to_text(_config(model, serving))


def has_labels(model: ServedModel) -> bool:
    """Return whether the classes have names, and Triton can rank them by one of the outputs."""
    return bool(model.info and model.info.class_names and _ranked(model))


def dims_of(model: ServedModel, spec: TensorSpec) -> list[int]:
    """Return the shape, without the batch axis if Triton adds it."""
    shape = spec.shape[1:] if model.batches else spec.shape  # the shapes of an elastic model are complete
    return [-1 if size is None else size for size in shape]


def type_of(spec: TensorSpec) -> Word:
    """Return Triton's name for the tensor's type. Raises UsageError if it has none."""
    if spec.dtype not in _TYPES:
        raise UsageError(
            f"'{spec.name}' is {spec.dtype}, a type that Triton does not have (expected {', '.join(_TYPES)})"
        )
    return Word(_TYPES[spec.dtype])


def _config(model: ServedModel, serving: Serving) -> Message:
    batches = model.batches
    message: dict[str, Any] = {
        "name": serving.name,
        "backend": model.backend,
        "max_batch_size": batches.max if batches else 0,
        "input": [_tensor(model, spec) for spec in filter(None, (model.input, model.keep))],
        "output": [_tensor(model, spec) for spec in model.outputs],
        "instance_group": {"kind": Word(f"KIND_{serving.device.upper()}"), "count": serving.instances},
    }
    if batches:
        message["dynamic_batching"] = {
            "preferred_batch_size": sorted({batches.opt, batches.max}),
            "max_queue_delay_microseconds": serving.delay,
        }
    sizes = sorted({batches.min, batches.opt, batches.max}) if batches else [0]
    message["model_warmup"] = [_warmup(model, size) for size in sizes]
    if serving.accelerator:
        field = f"{serving.device}_execution_accelerator"
        message["optimization"] = {"execution_accelerators": {field: {"name": serving.accelerator}}}
    message["parameters"] = [{"key": key, "value": {"string_value": value}} for key, value in _facts(model).items()]
    return message


def _tensor(model: ServedModel, spec: TensorSpec) -> Message:
    message: dict[str, Any] = {"name": spec.name, "data_type": type_of(spec), "dims": dims_of(model, spec)}
    if spec == model.keep and model.backend == "tensorrt":  # no other backend has shape tensors
        message["is_shape_tensor"] = True
    if has_labels(model) and spec.name == _ranked(model):
        message["label_filename"] = LABELS
    return message


def _warmup(model: ServedModel, batch: int) -> Message:
    """Return one request of size `batch`. If that is 0, Triton adds no batch axis, and the shape is complete."""
    dims = [1 if size < 0 else size for size in dims_of(model, model.input)]
    images = {"data_type": type_of(model.input), "dims": dims, "random_data": True}
    inputs = [{"key": model.input.name, "value": images}]
    if model.keep:  # random numbers would be out of bounds
        keep = {"data_type": type_of(model.keep), "dims": dims_of(model, model.keep), "input_data_file": KEEP}
        inputs.append({"key": model.keep.name, "value": keep})
    size = {"batch_size": batch} if batch else {}
    return {"name": f"batch {batch or dims[0]}", **size, "inputs": inputs}


def _facts(model: ServedModel) -> dict[str, str]:
    """Return facts that a client may ask the server for: how images are prepared, and which weights these are."""
    facts = {"made_from": brief(model.path.name), "made_by": brief(model.made)}
    if model.keep:
        facts["default_keep"] = " ".join(map(str, model.default_keep))
    if model.info:
        facts[METADATA_KEY] = dataclasses.replace(model.info, class_names=()).to_json()  # the labels file has them
    return facts


def _ranked(model: ServedModel) -> str | None:
    """Return the name of the output with a number for every class, or None."""
    classes = model.info.num_classes if model.info else 0
    return next((spec.name for spec in model.outputs if classes and spec.shape[1:] == (classes,)), None)


def _check(model: ServedModel, serving: Serving) -> None:
    if model.backend == "tensorrt" and (serving.device == "cpu" or serving.accelerator):
        wrong = "--device cpu" if serving.device == "cpu" else "--accelerator"
        raise UsageError(f"{model.path} is a TensorRT engine, which runs on a GPU as it is: leave out {wrong}")
    if serving.accelerator and _ACCELERATORS[serving.accelerator] != serving.device:
        needed = _ACCELERATORS[serving.accelerator]
        raise UsageError(f"the accelerator '{serving.accelerator}' works on a {needed.upper()}: add --device {needed}")
