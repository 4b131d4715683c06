"""Tensors of the Open Inference Protocol v2 over HTTP, in JSON and with the binary extension.

https://github.com/kserve/open-inference-protocol. The extension, which Triton's clients use by default, appends the
bytes of the tensors to the JSON. The header Inference-Header-Content-Length gives the length of the JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evodeploy.engines.base import Array
from evodeploy.errors import InputError, RuntimeFailedError
from evodeploy.specs import TensorSpec
from evodeploy.text import brief

SIZE = "binary_data_size"
JSON_LENGTH = "inference-header-content-length"
MOST_LISTS = 1_000_000  # lists and objects in a JSON request: one of three bytes takes a hundred once it is parsed
_SHOWN = 200  # characters of a request's text that an answer repeats

DATATYPES = {
    "float32": "FP32", "float16": "FP16", "float64": "FP64", "uint8": "UINT8", "int8": "INT8", "int16": "INT16",
    "uint16": "UINT16", "int32": "INT32", "uint32": "UINT32", "int64": "INT64", "uint64": "UINT64", "bool": "BOOL",
}  # fmt: skip


@dataclass(frozen=True)
class InferenceRequest:
    """The input and the wanted outputs, each as binary or not. If no output is named, all are wanted as `binary` says.

    `keep_ratio` is the share of tokens to keep, `least_keep_ratio` the lowest share that is acceptable.
    """

    identity: str
    images: Array
    outputs: dict[str, bool]
    binary: bool
    keep_ratio: float | None = None
    least_keep_ratio: float | None = None


def tensor_metadata(spec: TensorSpec) -> dict[str, Any]:
    """Describe a tensor in the protocol's form: -1 is the dynamic batch."""
    shape = [-1 if size is None else size for size in spec.shape]
    return {"name": spec.name, "datatype": DATATYPES[spec.dtype], "shape": shape}


def check_known(what: str, given: Iterable[str], known: Collection[str]) -> None:
    """Raise InputError if one of the names in `given` is not `known`. `what` is the kind of thing they name."""
    for name in given:
        if name not in known:
            expected = f"expected {', '.join(known)}" if known else "there are none here"
            raise InputError(f"the {what} '{brief(name, 60)}' is not known: {expected}")


def parse_request(body: bytes, json_length: str | None, spec: TensorSpec, outputs: Sequence[str]) -> InferenceRequest:
    """Parse a request for an engine that takes `spec` and returns `outputs`. Raises InputError if it is invalid."""
    return request_of(*_split(body, json_length), spec, outputs)


def request_of(header: dict[str, Any], rest: bytes, spec: TensorSpec, outputs: Sequence[str]) -> InferenceRequest:
    """Build the request of `parse_request` from its JSON and the bytes that follow it."""
    given = header.get("inputs")
    if not isinstance(given, list) or len(given) != 1 or not isinstance(given[0], dict):
        raise InputError(f"'inputs' must be a list of one tensor, '{spec.name}'")
    images = _tensor(given[0], rest, spec)
    wanted: dict[str, bool] = {}
    parameters = _parameters(header, "a request", ("keep_ratio", "least_keep_ratio", "binary_data_output"))
    binary = _choice(parameters, "binary_data_output", False)
    ratios = _share(parameters, "keep_ratio"), _share(parameters, "least_keep_ratio")
    asked = header.get("outputs")
    if asked is not None and not isinstance(asked, list):
        raise InputError("'outputs' must be a list")
    for output in asked or []:
        name = _text(output.get("name")) if isinstance(output, dict) else ""
        if name not in outputs:
            raise InputError(f"there is no output '{name}': expected some of {', '.join(outputs)}")
        of_output = _parameters(output, "an output", ("binary_data", "classification"))
        if "classification" in of_output:
            raise InputError("the classification extension is not offered: ask for the logits, or POST /v1/predict")
        wanted[name] = _choice(of_output, "binary_data", binary)
    identity = "" if header.get("id") is None else header["id"]
    if not isinstance(identity, str) or len(identity) > _SHOWN:
        raise InputError(f"'id' is {brief(json.dumps(identity), 60)}, expected text of up to {_SHOWN} characters")
    return InferenceRequest(identity, images, wanted, binary, *ratios)


def make_response(
    model: str, request: InferenceRequest, outputs: Mapping[str, Array], keep_ratio: str
) -> tuple[bytes, int | None]:
    """Return the body, and the length of its JSON if binary tensors follow. Its parameters hold `keep_ratio`.

    Raises RuntimeFailedError if an output in JSON is not finite.
    """
    described, tail = [], []
    for name, binary in (request.outputs or dict.fromkeys(outputs, request.binary)).items():
        value = outputs[name]
        entry: dict[str, Any] = {"name": name, "datatype": DATATYPES[value.dtype.name], "shape": list(value.shape)}
        if binary:
            data = np.ascontiguousarray(value, value.dtype.newbyteorder("<")).tobytes()
            entry["parameters"] = {SIZE: len(data)}
            tail.append(data)
        else:
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise RuntimeFailedError(
                    f"output '{name}' is not finite, which JSON cannot express: ask for it in binary"
                )
            entry["data"] = value.ravel().tolist()
        described.append(entry)
    document: dict[str, Any] = {"model_name": model, "outputs": described, "parameters": {"keep_ratio": keep_ratio}}
    if request.identity:
        document["id"] = request.identity
    head = json.dumps(document, allow_nan=False).encode()
    return b"".join([head, *tail]), len(head) if tail else None


def _split(body: bytes, json_length: str | None) -> tuple[dict[str, Any], bytes]:
    length = len(body)
    if json_length is not None:
        digits = json_length.isascii() and json_length.isdecimal() and len(json_length) < 20
        if not digits or int(json_length) > len(body):
            raise InputError(f"{JSON_LENGTH} is '{brief(json_length, 20)}', expected a number of bytes of the body")
        length = int(json_length)
    if body.count(b"[", 0, length) + body.count(b"{", 0, length) > MOST_LISTS:
        raise InputError(f"the request has more than {MOST_LISTS:,} lists and objects: send flat data, or bytes")
    try:
        header = json.loads(body[:length])
    except (ValueError, RecursionError) as error:
        raise InputError(f"the request is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise InputError(f"the request is of type {type(header).__name__}, expected a JSON object")
    return header, body[length:]


def _tensor(tensor: dict[str, Any], rest: bytes, spec: TensorSpec) -> Array:
    expected = tensor_metadata(spec)
    if tensor.get("name") != spec.name or tensor.get("datatype") != expected["datatype"]:
        raise InputError(
            f"the input is '{_text(tensor.get('name'))}' {_text(tensor.get('datatype'))}, expected '{spec.name}' "
            f"{expected['datatype']}"
        )
    shape = tensor.get("shape")
    fits = (
        isinstance(shape, list)
        and len(shape) == len(spec.shape)
        and all(type(size) is int and 0 < size < 2**31 for size in shape)
        and all(size == wanted for size, wanted in zip(shape[1:], spec.shape[1:], strict=True))
    )
    if not fits:
        raise InputError(f"input '{spec.name}' has the shape {str(shape)[:60]}, expected {expected['shape']}")
    assert isinstance(shape, list)
    count, size = math.prod(shape), _parameters(tensor, "an input", (SIZE,)).get(SIZE)
    if size is None and not rest:
        return _finite(_from_list(tensor.get("data"), count, spec), spec).reshape(shape)
    if size != len(rest) or size != count * np.dtype(spec.dtype).itemsize:
        raise InputError(
            f"input '{spec.name}' has {len(rest)} bytes and states {str(size)[:20]}, expected "
            f"{count * np.dtype(spec.dtype).itemsize} of them for the shape {shape}"
        )
    if "data" in tensor:
        raise InputError(f"the data of input '{spec.name}' are given more than once")
    values = np.frombuffer(rest, np.dtype(spec.dtype).newbyteorder("<")).astype(spec.dtype, copy=False)
    return _finite(values, spec).reshape(shape)


def _from_list(data: Any, count: int, spec: TensorSpec) -> Array:
    try:
        given = np.asarray(data, object).ravel()  # as objects: otherwise all texts take as much as the longest
        if not {*map(type, given)} <= {int, float}:  # texts and booleans would become numbers
            raise TypeError("no numbers")
        values = given.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"the data of input '{spec.name}' are not numbers in the range of {spec.dtype}") from error
    if values.size != count:
        raise InputError(f"input '{spec.name}' has {values.size} numbers, expected {count} for its shape")
    if np.dtype(spec.dtype).kind == "u" and not ((values >= 0) & (values <= 255) & (values == values.round())).all():
        raise InputError(f"the data of input '{spec.name}' are not whole numbers from 0 to 255")
    with np.errstate(over="ignore"):
        array: Array = values.astype(spec.dtype)
    return array


def _finite(values: Array, spec: TensorSpec) -> Array:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise InputError(f"the data of input '{spec.name}' are not finite in {DATATYPES[spec.dtype]}")
    return values


def _parameters(holder: dict[str, Any], what: str, known: Sequence[str]) -> dict[str, Any]:
    parameters = holder.get("parameters", {})
    if not isinstance(parameters, dict):
        raise InputError("'parameters' must be an object")
    check_known(f"parameter of {what}", parameters, known)
    return parameters


def _choice(parameters: dict[str, Any], name: str, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise InputError(f"'{name}' is {brief(json.dumps(value), 60)}, expected true or false")
    return value


def _share(parameters: dict[str, Any], name: str) -> float | None:
    value = parameters.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1):
        raise InputError(f"'{name}' is {brief(json.dumps(value), 60)}, expected a number above 0 and up to 1")
    return None if value is None else float(value)


def _text(value: Any) -> str:
    return brief(value, _SHOWN) if isinstance(value, str) else ""
