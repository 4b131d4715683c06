"""Tensors of the Open Inference Protocol v2 over gRPC: the counterpart of `protocol.py` for messages.

The data of a tensor are in the message's `raw_input_contents`, as Triton's client sends them, or as typed numbers in
the tensor itself. The answer holds its outputs in the same form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from evodeploy.engines.base import Array
from evodeploy.errors import InputError
from evodeploy.serving import protocol
from evodeploy.serving.protocol import DATATYPES, InferenceRequest
from evodeploy.specs import TensorSpec

MOST_FIELDS = 10_000  # of a message and its nested ones: a field of two bytes takes a hundred once it is parsed

# The field that holds the numbers of a tensor, by datatype: there is none for FP16.
_FIELDS = {
    "FP32": "fp32_contents", "FP64": "fp64_contents", "BOOL": "bool_contents", "INT64": "int64_contents",
    "UINT64": "uint64_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
}  # fmt: skip


def read(kind: str, body: bytes) -> Any:
    """Parse `body` as a message of this kind. Raises InputError if it is not one, or has more than `MOST_FIELDS`."""
    wanted = getattr(service_pb2, kind)
    try:
        _count(memoryview(body), wanted.DESCRIPTOR, MOST_FIELDS)
        return wanted.FromString(body)
    except (DecodeError, IndexError) as error:
        raise InputError(f"the bytes are not a valid {kind}") from error


def write(kind: str, **fields: Any) -> bytes:
    """Return the bytes of a message of this kind."""
    return bytes(getattr(service_pb2, kind)(**fields).SerializeToString())


def request_of(message: Any, spec: TensorSpec, outputs: Sequence[str]) -> InferenceRequest:
    """Read a ModelInferRequest as `protocol.parse_request` reads JSON; `binary` is true if its data are raw."""
    if len(message.inputs) != 1:
        raise InputError(f"the request has {len(message.inputs)} inputs, expected one, '{spec.name}'")
    if len(message.outputs) > len(outputs):
        raise InputError(f"the request asks for {len(message.outputs)} outputs: there are {len(outputs)}")
    tensor, raw = message.inputs[0], len(message.raw_input_contents) > 0
    if len(message.raw_input_contents) > 1 or (raw and tensor.HasField("contents")):
        raise InputError(f"the data of input '{spec.name}' are given more than once")
    data = message.raw_input_contents[0] if raw else _packed(tensor.contents, spec)
    given = {
        "name": tensor.name,
        "datatype": tensor.datatype,
        "shape": list(tensor.shape[: len(spec.shape) + 1]),
        "parameters": _parameters(tensor) | {protocol.SIZE: len(data)},
    }
    wanted = [
        {"name": output.name, "parameters": _parameters(output) | {"binary_data": raw}} for output in message.outputs
    ]
    parameters = _parameters(message) | {"binary_data_output": raw}
    header = {"id": message.id, "inputs": [given], "outputs": wanted, "parameters": parameters}
    return protocol.request_of(header, data, spec, outputs)


def response_of(model: str, version: str, request: InferenceRequest, outputs: Mapping[str, Array], ratio: str) -> bytes:
    """Return the bytes of the ModelInferResponse, with the keep ratio in its parameters."""
    message = service_pb2.ModelInferResponse(model_name=model, model_version=version, id=request.identity)
    message.parameters["keep_ratio"].string_param = ratio
    wanted = {name: outputs[name] for name in request.outputs or outputs}
    raw = request.binary or any(DATATYPES[value.dtype.name] not in _FIELDS for value in wanted.values())
    for name, value in wanted.items():
        datatype = DATATYPES[value.dtype.name]
        tensor = message.outputs.add(name=name, datatype=datatype, shape=value.shape)
        if raw:
            message.raw_output_contents.append(np.ascontiguousarray(value, value.dtype.newbyteorder("<")).tobytes())
        else:
            getattr(tensor.contents, _FIELDS[datatype]).extend(value.ravel().tolist())
    return bytes(message.SerializeToString())


def _count(data: memoryview, kind: Any, left: int) -> int:
    """Return how many fields may follow those in `data`, an encoded message of this `kind` (a Descriptor).

    https://protobuf.dev/programming-guides/encoding/. Raises InputError if there are more than `left`, IndexError or
    DecodeError if it is not a message.
    """
    place = 0
    while place < len(data):
        if left == 0:
            raise InputError(f"the message has more than {MOST_FIELDS} fields")
        left -= 1
        tag, place = _number(data, place)
        if tag & 7 == 0:
            _, place = _number(data, place)
        elif tag & 7 == 2:
            size, place = _number(data, place)
            field = kind.fields_by_number.get(tag >> 3)
            if field is not None and field.message_type is not None:
                left = _count(data[place : place + size], field.message_type, left)
            place += size
        elif tag & 7 in (1, 5):
            place += 8 if tag & 7 == 1 else 4
        else:
            raise DecodeError("a group, which this protocol does not use")
    return left


def _number(data: memoryview, place: int) -> tuple[int, int]:
    """Read a number with seven bits per byte, of at most ten bytes; return it and the position after it."""
    number = 0
    for shift in range(0, 70, 7):
        byte = data[place]
        place += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, place
    raise DecodeError("a number of more than ten bytes")


def _packed(contents: Any, spec: TensorSpec) -> bytes:
    """Return typed numbers as the bytes in which they would be sent raw."""
    datatype = DATATYPES[spec.dtype]
    if datatype not in _FIELDS:
        raise InputError(f"input '{spec.name}' is {datatype}, which has no typed contents: send raw_input_contents")
    dtype = np.dtype(spec.dtype)
    given = np.fromiter(getattr(contents, _FIELDS[datatype]), {"i": np.int64, "u": np.uint64}.get(dtype.kind, dtype))
    packed = given.astype(dtype.newbyteorder("<"))
    if dtype.kind in "iu" and (packed != given).any():
        raise InputError(f"the data of input '{spec.name}' are not numbers in the range of {datatype}")
    return packed.tobytes()


def _parameters(holder: Any) -> dict[str, Any]:
    """Return the parameters of a request or a tensor, without those that have no value."""
    found = {name: (value, value.WhichOneof("parameter_choice")) for name, value in holder.parameters.items()}
    return {name: getattr(value, choice) for name, (value, choice) in found.items() if choice is not None}
