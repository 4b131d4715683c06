"""`/v1/predict`: the most probable classes of an image file, and the tokens that were kept."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from evodeploy.compare.selections import selections_from
from evodeploy.engines.base import Array
from evodeploy.errors import InputError, RuntimeFailedError
from evodeploy.inference.answers import classes_to_name, predictions_of
from evodeploy.preprocess import prepare_upload
from evodeploy.serving import openapi
from evodeploy.serving.backend import KEEP_HEADER, Asked, Backend
from evodeploy.serving.gate import Room
from evodeploy.serving.refusals import check_query
from evodeploy.serving.settings import Limits
from evodeploy.specs import ModelInfo

# No text of a form is used, and some of Python's codecs fail with any error, or take minutes for a long text.
_CHARSET = re.compile(r";\s*charset\s*=[^;]*", re.IGNORECASE)


def routes(backend: Callable[[], Backend], limits: Limits, room: Room) -> APIRouter:
    """Create the endpoint for image files, which are decoded in threads of `room`."""
    router = APIRouter(tags=["images"], responses=openapi.REFUSALS, dependencies=[Depends(check_query)])

    @router.post(
        "/v1/predict",
        openapi_extra=openapi.body({"image/*": openapi.BYTES, "multipart/form-data": openapi.FORM}),
        responses=openapi.answer("The classes", {"application/json": openapi.PREDICTION}),
    )
    async def predict(
        request: Request,
        response: Response,
        top: int | None = None,
        keep_ratio: float | None = None,
        least_keep_ratio: float | None = None,
    ) -> dict[str, Any]:
        """Return the most probable classes of an image file, the body or a form's one file, and which tokens were kept.

        `top` is the number of classes: by default 5, or all if there are fewer. For an elastic model, `keep_ratio` is
        the share of tokens to keep, or `least_keep_ratio` the lowest share that is acceptable. Each excludes the other.
        """
        here, asked = backend(), Asked(keep_ratio, least_keep_ratio)
        here.check(1, asked)
        classes = classes_to_name(here.info, top)
        body = await request.body()
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "multipart/form-data":
            body = await room.in_thread(_file_of, request.headers, body)
        prepared = await room.in_thread(prepare_upload, body, here.info, limits.pixels)
        answer = await here.run(prepared[None], asked)
        (prediction,) = predictions_of(answer.outputs, here.info, classes, [0.0], 0.0)
        if isinstance(prediction, RuntimeFailedError):
            raise prediction
        response.headers[KEEP_HEADER] = answer.shown
        return {
            "labels": [
                {"name": label.name, "index": label.index, "probability": label.probability}
                for label in prediction.labels
            ],
            "selections": _selections(answer.outputs, here.info),
            "keep_ratios": list(answer.keep_ratios),
        }

    return router


def _file_of(headers: Headers, body: bytes) -> bytes:
    """Return the one file of a form. It takes seconds for a form of many parts, so it is work for a thread."""

    async def whole() -> AsyncGenerator[bytes, None]:
        yield body

    kind = _CHARSET.sub("", headers["content-type"])
    try:
        form = asyncio.run(MultiPartParser(Headers({"content-type": kind}), whole(), max_files=1).parse())
    except MultiPartException as error:
        raise InputError(f"the form is not valid: {error.message}") from error
    uploads = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    if len(uploads) != 1:
        raise InputError(f"the form has {len(uploads)} files, expected one image")
    with uploads[0].file as file:
        return file.read()


def _selections(outputs: dict[str, Array], info: ModelInfo) -> list[dict[str, Any]]:
    """Return for each selection the tokens per side of its grid, and the positions on it that were kept."""
    selections = selections_from(outputs, info)
    return [{"side": each.side, "kept": sorted(each.own_positions[0].tolist())} for each in selections]
