"""`/v2/models/…`: outputs for prepared images, by the Open Inference Protocol."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Depends, Request, Response

from evodeploy.elastic import shortest_ratio
from evodeploy.preprocess import in_words
from evodeploy.serving import openapi, protocol
from evodeploy.serving.backend import KEEP_HEADER, Answer, Asked, Backend
from evodeploy.serving.budget import Budget
from evodeploy.serving.gate import Room
from evodeploy.serving.protocol import InferenceRequest
from evodeploy.serving.refusals import NoModelError, check_query
from evodeploy.specs import ModelInfo, TensorSpec
from evodeploy.text import brief

PROTOCOL = "Open Inference Protocol"
VERSION = "1"


def routes(backend: Callable[[], Backend], name: str, room: Room) -> APIRouter:
    """Create the endpoints of the one model `name`, with or without its version 1 in the path."""

    async def of_model(model: str) -> None:
        check_named(name, model)

    async def of_version(model: str, version: str) -> None:
        check_named(name, model, version)

    models = _model_routes(backend, name, room)
    router = APIRouter()
    router.include_router(models, prefix="/v2/models/{model}", dependencies=[Depends(of_model)])
    router.include_router(models, prefix="/v2/models/{model}/versions/{version}", dependencies=[Depends(of_version)])
    return router


def check_named(name: str, model: str, version: str = VERSION) -> None:
    """Raise NoModelError if a request is for another model than `name`, or for another version than `VERSION`."""
    if model != name:
        raise NoModelError(f"there is no model '{brief(model, 60)}' here: expected '{name}'")
    if version != VERSION:
        raise NoModelError(f"there is no version '{brief(version, 60)}' of '{name}' here: expected '{VERSION}'")


def metadata_of(here: Backend, name: str) -> dict[str, Any]:
    """Describe the model in the protocol's form, with the facts that evodeploy knows."""
    return {
        "name": name,
        "versions": [VERSION],
        "platform": f"evodeploy_{here.engine}",
        "inputs": [protocol.tensor_metadata(spec) for spec in here.inputs[:1]],
        "outputs": [protocol.tensor_metadata(spec) for spec in here.outputs],
        "parameters": _facts(here.info) | {"target": _target(here.budget)},
    }


async def inferred(
    here: Backend, room: Room, read: Callable[[TensorSpec, list[str]], InferenceRequest]
) -> tuple[InferenceRequest, Answer]:
    """Parse the request with `read` in a thread of `room`, given the input and the names of the outputs; answer it."""
    arrived = time.monotonic()
    here.check(1, Asked())
    parsed = await room.in_thread(read, here.inputs[0], [spec.name for spec in here.outputs])
    asked = Asked(parsed.keep_ratio, parsed.least_keep_ratio, arrived)
    return parsed, await here.run(parsed.images, asked)


def _model_routes(backend: Callable[[], Backend], name: str, room: Room) -> APIRouter:
    models = APIRouter(tags=[PROTOCOL], responses=openapi.REFUSALS, dependencies=[Depends(check_query)])

    @models.get("", responses=openapi.answer("The model", {"application/json": openapi.METADATA}))
    async def metadata() -> dict[str, Any]:
        """Return the model's inputs and outputs, and the facts that evodeploy knows."""
        return metadata_of(backend(), name)

    @models.get("/ready")
    async def model_ready() -> dict[str, Any]:
        """Return whether this model is ready."""
        backend()
        return {"name": name, "ready": True}

    @models.post(
        "/infer",
        openapi_extra=openapi.body({"application/json": openapi.INFERENCE}),
        responses=openapi.answer(
            "The outputs", {"application/json": openapi.INFERRED, "application/octet-stream": openapi.BYTES}
        ),
    )
    async def infer(request: Request) -> Response:
        """Compute outputs for prepared images, in JSON or with the binary tensor extension."""
        body, length = await request.body(), ", ".join(request.headers.getlist(protocol.JSON_LENGTH)) or None
        read = functools.partial(protocol.parse_request, body, length)
        parsed, answer = await inferred(backend(), room, read)
        body, length_of_json = protocol.make_response(name, parsed, answer.outputs, answer.shown)
        headers = {KEEP_HEADER: answer.shown}
        if length_of_json is None:
            return Response(body, media_type="application/json", headers=headers)
        headers[protocol.JSON_LENGTH] = str(length_of_json)
        return Response(body, media_type="application/octet-stream", headers=headers)

    return models


def _target(budget: Budget | None) -> dict[str, Any] | None:
    """Return the target latency, and the keep ratios between which the server chooses to reach it."""
    if budget is None:
        return None
    return {"milliseconds": round(budget.target * 1000, 3), "keep_ratios": [budget.low, budget.high]}


def _facts(info: ModelInfo) -> dict[str, Any]:
    return {
        "model": info.model,
        "precision": info.precision,
        "image_size": info.image_size,
        "resized": info.preprocessing.resized(info.image_size),
        "crop_mode": info.preprocessing.crop_mode,
        "input_format": info.input_format,
        "keep_ratios": list(info.keep_ratios),
        "elastic": [[shortest_ratio(end, stage.tokens) for end in (stage.low, stage.high)] for stage in info.elastic],
        "mean": list(info.preprocessing.mean),
        "std": list(info.preprocessing.std),
        "preparation": in_words(info),
        "classes": info.num_classes,
    }
