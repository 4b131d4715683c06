"""The parts of the OpenAPI document that FastAPI cannot derive from the code: bodies, answers, refusals, samples."""

from __future__ import annotations

import copy
import json
import math
import shlex
from typing import Any
from urllib.parse import quote

from evodeploy.elastic import shared_ratios
from evodeploy.errors import InputError
from evodeploy.serving.backend import Backend
from evodeploy.serving.protocol import tensor_metadata
from evodeploy.specs import ModelInfo

SERVER = "SERVER"  # in samples; the page replaces it with its own address


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": required | (optional or {})}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


_STRING, _INTEGER, _NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}
_DATATYPE = _STRING | {"description": "FP32, UINT8, INT64, …"}
_PARAMETERS = {"type": "object"}
_RATIOS = {
    "keep_ratio": _NUMBER | {"description": "the share of tokens that an elastic model keeps"},
    "least_keep_ratio": _NUMBER | {"description": "the least share that will do"},
}
_TENSOR = {"name": _STRING, "datatype": _DATATYPE, "shape": _list(_INTEGER)}

BYTES = {"type": "string", "format": "binary"}
FORM = _object({"image": BYTES})
INFERENCE = _object(
    {
        "inputs": _list(
            _object(
                {"name": _STRING, "shape": _list(_INTEGER), "datatype": _DATATYPE},
                {
                    "data": {"type": "array", "description": "numbers, flat or nested"},
                    "parameters": _PARAMETERS | {"description": "binary_data_size, where bytes follow the JSON"},
                },
            )
        )
    },
    {
        "id": _STRING | {"description": "comes back with the answer"},
        "outputs": _list(_object({"name": _STRING}, {"parameters": _PARAMETERS})) | {"description": "by default all"},
        "parameters": _PARAMETERS | {"properties": _RATIOS},
    },
)
INFERRED = _object(
    {
        "model_name": _STRING,
        "outputs": _list(_object(_TENSOR, {"data": {"type": "array"}, "parameters": _PARAMETERS})),
        "parameters": _object({"keep_ratio": _STRING | {"description": "the shares that were kept"}}),
    },
    {"id": _STRING},
)
METADATA = _object(
    {
        "name": _STRING,
        "versions": _list(_STRING),
        "platform": _STRING,
        "inputs": _list(_object(_TENSOR)),
        "outputs": _list(_object(_TENSOR)),
        "parameters": _PARAMETERS,
    }
)
PREDICTION = _object(
    {
        "labels": _list(_object({"name": _STRING, "index": _INTEGER, "probability": _NUMBER})),
        "selections": _list(
            _object(
                {
                    "side": _INTEGER | {"description": "tokens of a side of the grid"},
                    "kept": _list(_INTEGER) | {"description": "positions on it"},
                }
            )
        ),
        "keep_ratios": _list(_NUMBER),
    }
)

_ERROR = {"content": {"application/json": {"schema": {"type": "object", "properties": {"error": _STRING}}}}}
REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The request is not one that the model takes", **_ERROR},
    401: {"description": "A bearer token is needed", **_ERROR},
    403: {"description": "The request comes from a page of another site", **_ERROR},
    404: {"description": "There is no such model or version", **_ERROR},
    408: {"description": "The body arrived too slowly", **_ERROR},
    413: {"description": "The request is too large", **_ERROR},
    421: {"description": "The host is not one of this service", **_ERROR},
    422: {"description": "A parameter is of another type", **_ERROR},
    429: {"description": "Too many requests at once", **_ERROR},
    431: {"description": "The headers are too large", **_ERROR},
    500: {"description": "The model failed", **_ERROR},
    503: {"description": "The model is not there", **_ERROR},
    504: {"description": "Not done in time", **_ERROR},
}


def body(content: dict[str, Any]) -> dict[str, Any]:
    """Describe a body that has one of the media types of `content`, each with its schema."""
    return {"requestBody": {"required": True, "content": _media(content)}}


def answer(description: str, content: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    """Describe an answer 200 in the media types of `content`, each with its schema."""
    return {200: {"description": description, "content": _media(content)}}


def _media(content: dict[str, Any]) -> dict[str, Any]:
    return {kind: {"schema": schema} for kind, schema in content.items()}


def with_samples(document: dict[str, Any], here: Backend, name: str, asks_token: bool) -> dict[str, Any]:
    """Return `document` with shell samples for each endpoint, as `x-codeSamples`. The server answers them with 200.

    They need curl. `cat.jpg` is an image in the working folder, and $EVODEPLOY_TOKEN holds the token.
    """
    document = copy.deepcopy(document)
    access = '--header "Authorization: Bearer $EVODEPLOY_TOKEN" ' if asks_token else ""
    for path, methods in document["paths"].items():
        place = SERVER + path.format(model=quote(name), version="1")
        for operation in methods.values():
            lines = _samples(path, place, here, f"curl {access}")
            operation["x-codeSamples"] = [{"lang": "Shell", "label": label, "source": line} for label, line in lines]
    return document


def _samples(path: str, place: str, here: Backend, curl: str) -> list[tuple[str, str]]:
    ratio = _ratio(here.info)
    if path.endswith("/infer"):
        lines = [("An image of zeros", _zeros(place, here, curl, {}))]
        if ratio is not None:
            lines.append(("Keeping a share of the tokens", _zeros(place, here, curl, {"keep_ratio": ratio})))
        return lines
    if path == "/v1/predict":
        if not here.info.num_classes:  # without classes, no image is answered with 200
            return []
        lines = [
            ("The sample of the page", f"curl --silent {SERVER}/sample.png | {curl}--data-binary @- {place}"),
            ("A file, and its best class", f"{curl}--data-binary @cat.jpg '{place}?top=1'"),
            ("A file in a form", f"{curl}--form image=@cat.jpg {place}"),
        ]
        if ratio is not None:
            lines.append(
                ("Keeping a share of the tokens", f"{curl}--data-binary @cat.jpg '{place}?keep_ratio={ratio}'")
            )
        return lines
    return [("", curl + place)]


def _zeros(place: str, here: Backend, curl: str, parameters: dict[str, float]) -> str:
    """Return a JSON request with an image of zeros, written by the shell because it has too many numbers to show."""
    tensor = tensor_metadata(here.inputs[0])
    tensor["shape"][0] = 1
    request = {"inputs": [tensor | {"data": []}], "outputs": [{"name": here.outputs[0].name}]}
    head, tail = json.dumps(request | ({"parameters": parameters} if parameters else {})).split('"data": []')
    zeros = f'"$(yes 0 | head -n {math.prod(tensor["shape"])} | paste -s -d , -)"'
    parts = " ".join([shlex.quote(f'{head}"data": ['), zeros, shlex.quote(f"]{tail}")])
    return f"printf %s {parts} |\n  {curl}--data-binary @- {place}"


def _ratio(info: ModelInfo) -> float | None:
    """Return a keep ratio that an elastic model accepts: 0.5, or else its highest; None for other models."""
    if not info.elastic:
        return None
    try:
        info.keep_of(0.5)
    except InputError:
        return max(shared_ratios(info.elastic), default=None)
    return 0.5
