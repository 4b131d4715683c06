"""Reading ONNX files, with the checks that a runtime's parser may leave out, and writing them atomically."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from evodeploy.errors import BadFileError, needs
from evodeploy.files import check_input, open_regular, replacing, sha256
from evodeploy.spec_rules import read_model_info
from evodeploy.specs import LARGEST_NAME, METADATA_KEY, ModelInfo, Precision, TensorSpec
from evodeploy.text import brief, reason

if TYPE_CHECKING:
    import onnx

LARGEST = 2**31 - 2**24  # bytes of weights in one file: protobuf cannot write 2 GiB, and the graph needs a part of them


def read_onnx(path: Path) -> onnx.ModelProto:
    """Load and check `path`. Raises BadFileError if it is damaged, without content, too large, or not an ONNX model."""
    check_input(path, "an ONNX model")
    with needs("onnx"):
        import onnx
    try:
        model = onnx.load(path)
        size = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
        if size <= LARGEST:
            onnx.checker.check_model(model)
    except Exception as error:  # protobuf's decoding errors, the checker's own errors, missing external data
        raise BadFileError(f"{path} is damaged or not an ONNX model ({reason(error)})") from error
    if size > LARGEST:
        raise BadFileError(
            f"{path} has {size / 1e9:.2f} GB of weights, expected {LARGEST / 1e9:.2f} GB at most: a larger graph can "
            "neither be checked nor converted"
        )
    if not (model.graph.node and model.graph.input and model.graph.output):
        raise BadFileError(f"{path} holds no network: {len(model.graph.node)} nodes, {len(model.graph.output)} outputs")
    info_of(model, path)
    return model


def external_data(path: Path) -> tuple[str, ...]:
    """Return the names of the files below the folder of `path` that hold its weights, without the package onnx.

    A tensor names its file in an entry `location` (StringStringEntryProto of onnx.proto: field 1 key, field 2 value).
    """
    with open_regular(path, "an ONNX model") as file:
        data = file.read()
    found: set[str] = set()
    for entry in re.finditer(rb"\x0a\x08location\x12([\x01-\x7f]|[\x80-\xff][\x01-\x1f])", data):
        low, *high = entry[1]
        size = (low & 0x7F) + (high[0] << 7 if high else 0)
        name = os.fsdecode(data[entry.end() : entry.end() + size])
        if "\0" not in name and not Path(name).is_absolute() and ".." not in Path(name).parts:
            found.add(name)
    return tuple(sorted(found))


def onnx_sha256(path: Path) -> str:
    """Return the SHA-256 of `path` followed by the files that hold its weights. Most exports are one file.

    Raises UsageError if one of them cannot be read.
    """
    return sha256(path, *(path.parent / name for name in external_data(path)))


def write_onnx(model: onnx.ModelProto, path: Path) -> None:
    """Write `model` into one self-contained file, atomically."""
    with replacing(path) as draft:
        save_onnx(model, draft)


def save_onnx(model: onnx.ModelProto, draft: Path) -> None:
    """Write `model` into the file `draft`, which is self-contained."""
    import onnx

    onnx.save(model, str(draft), format="protobuf")


def info_of(model: onnx.ModelProto, source: object = "the ONNX file") -> ModelInfo | None:
    """Return the model's facts from the metadata of the file `source`, or None if evodeploy did not make it."""
    text = next((entry.value for entry in model.metadata_props if entry.key == METADATA_KEY), None)
    return parse_info(text, source)


def set_info(model: onnx.ModelProto, info: ModelInfo) -> None:
    """Write the model's facts into its metadata, as the only entry there."""
    import onnx

    onnx.helper.set_model_props(model, {METADATA_KEY: info.to_json()})


def parse_info(text: str | None, source: object) -> ModelInfo | None:
    """Return the metadata property of `source` as ModelInfo, or None if it is empty. Raises BadFileError if wrong."""
    try:
        return read_model_info(text) if text else None
    except ValueError as error:
        raise BadFileError(f"{source}: evodeploy's metadata in it is wrong: {error}; export the model again") from error


def precision_of(model: onnx.ModelProto) -> Precision:
    """Return the lowest precision in which a weight matrix is stored, even if others keep a higher one."""
    from onnx import TensorProto

    kinds: dict[int, Precision] = {
        TensorProto.INT8: "int8",
        TensorProto.FLOAT8E4M3FN: "fp8",
        TensorProto.FLOAT16: "fp16",
        TensorProto.BFLOAT16: "bf16",
    }
    held = {tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) > 1}
    return next((precision for kind, precision in kinds.items() if kind in held), "fp32")


def input_spec(model: onnx.ModelProto) -> TensorSpec:
    """Return the specification of the images, the only input that is not a weight, but for `keep` of an elastic model.

    Raises BadFileError if there are other inputs, or if the type of one is unknown.
    """
    inputs, info = fed_inputs(model), info_of(model)
    if len(inputs) != (2 if info and info.elastic else 1):
        raise BadFileError(f"the ONNX has {len(inputs)} inputs, expected one batch of images")
    images, *_ = map(_spec, inputs)
    return images


def fed_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Return the inputs that a run is given: older files list the weights among them."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of ONNX's own operators, or 0 if `model` has only operators of others."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def output_specs(model: onnx.ModelProto) -> tuple[TensorSpec, ...]:
    """Return the specifications of all outputs, in the file's order."""
    return tuple(map(_spec, model.graph.output))


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    import onnx

    if not 0 < len(value.name) <= LARGEST_NAME:
        what = f"a name of {len(value.name)} characters"
        raise BadFileError(f"a tensor of the ONNX, '{brief(value.name, 40)}', has {what}, expected 1 to {LARGEST_NAME}")
    if not value.type.HasField("tensor_type"):
        raise BadFileError(f"'{value.name}' of the ONNX is a {value.type.WhichOneof('value')}, expected a tensor")
    tensor = value.type.tensor_type
    shape = tuple(size.dim_value or None for size in tensor.shape.dim)
    return TensorSpec(value.name, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name, shape)
