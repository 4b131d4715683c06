"""What the OpenAPI document says of bodies and refusals, which FastAPI cannot see in the code."""

from __future__ import annotations

from typing import Any

BYTES = {"type": "string", "format": "binary"}
FORM = {"type": "object", "required": ["image"], "properties": {"image": BYTES}}
INFERENCE = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string"},
        "inputs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "shape", "datatype"],
                "properties": {
                    "name": {"type": "string"},
                    "shape": {"type": "array", "items": {"type": "integer"}},
                    "datatype": {"type": "string"},
                    "data": {"type": "array"},
                    "parameters": {"type": "object"},
                },
            },
        },
        "outputs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": {"type": "string"}, "parameters": {"type": "object"}},
            },
        },
        "parameters": {"type": "object"},
    },
}

_ERROR = {"content": {"application/json": {"schema": {"type": "object", "properties": {"error": {"type": "string"}}}}}}
REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The request is not one that the model takes", **_ERROR},
    401: {"description": "A bearer token is needed", **_ERROR},
    404: {"description": "There is no such model or version", **_ERROR},
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
    """The description of a body that has one of the media types of `content`, each with its schema."""
    return {"requestBody": {"required": True, "content": {kind: {"schema": each} for kind, each in content.items()}}}
