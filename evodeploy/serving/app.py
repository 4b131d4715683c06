"""The service's endpoints, on anything that computes: so they are tested without Ray."""

from __future__ import annotations

import asyncio
import io
import math
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any, Protocol

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from PIL import Image
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from evodeploy import __version__
from evodeploy.engines.base import Array
from evodeploy.errors import BadFileError, EvodeployError, InputError, RuntimeFailedError, UsageError
from evodeploy.inference.answers import check_classes, predictions_of
from evodeploy.preprocess import prepare
from evodeploy.selections import told
from evodeploy.serving import protocol
from evodeploy.serving.gate import Gate
from evodeploy.serving.settings import Limits
from evodeploy.specs import ModelInfo, TensorSpec

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF")  # others may start programs, as EPS does Ghostscript
PROTOCOL = "Open Inference Protocol"
PAGE = files("evodeploy.serving") / "page"
PAGE_TYPES = {"page.js": "text/javascript", "page.css": "text/css", "api.js": "text/javascript"}
PAGE_POLICY = "default-src 'self'; img-src 'self' blob: data:; style-src 'self'; frame-ancestors 'none'"
OPEN = frozenset(
    ["/v2/health/live", "/v2/health/ready", "/", "/docs", "/openapi.json", *(f"/{name}" for name in PAGE_TYPES)]
)


class _NoModelError(UsageError):
    """The path names another model or version."""


class Backend(Protocol):
    """What computes: an engine's facts, and batches of whole requests."""

    info: ModelInfo
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    engine: str

    async def run(self, images: Array) -> dict[str, Array]:
        """Outputs by name for any number of images, prepared as `inputs[0]` says."""


def create_app(backend: Callable[[], Backend], name: str, limits: Limits, token: str | None = None) -> FastAPI:
    """The service of the model `name`; `backend` is asked for at each request, so that it may be replaced.

    Requests beyond `limits` get 413, 429 with Retry-After, or 504; without the `token`, where there is one, 401.
    """
    app = FastAPI(
        title=f"evodeploy: {name}", version=__version__, docs_url=None, redoc_url=None,
        description="Images to classes, and tensors by the Open Inference Protocol v2.",
    )  # fmt: skip
    app.add_middleware(Gate, limits=limits, token=token, exempt=OPEN)

    @app.exception_handler(EvodeployError)
    async def refused(request: Request, error: EvodeployError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, _status(error))

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return JSONResponse({"error": f"{' '.join(map(str, first['loc']))}: {first['msg']}"}, 422)

    @app.exception_handler(asyncio.TimeoutError)  # not the built-in one before Python 3.11
    async def late(request: Request, error: TimeoutError) -> JSONResponse:
        return JSONResponse({"error": f"not done within {limits.seconds:g} s"}, 504)

    async def timed(computing: Awaitable[dict[str, Array]]) -> dict[str, Array]:
        return await asyncio.wait_for(computing, limits.seconds)

    @app.get("/v2/health/live", tags=["health"])
    async def live() -> dict[str, bool]:
        """Whether the process answers."""
        return {"live": True}

    @app.get("/v2/health/ready", tags=["health"])
    async def ready() -> dict[str, bool]:
        """Whether the model is there."""
        backend()
        return {"ready": True}

    @app.get("/v2", tags=[PROTOCOL])
    async def server() -> dict[str, Any]:
        """What this server is."""
        return {"name": "evodeploy", "version": __version__, "extensions": ["binary_tensor_data"]}

    async def of_model(model: str) -> None:
        if model != name:
            raise _NoModelError(f"there is no model '{model}' here: expected '{name}'")

    async def of_version(model: str, version: str) -> None:
        await of_model(model)
        if version != "1":
            raise _NoModelError(f"there is no version '{version}' of '{name}' here: expected '1'")

    models = APIRouter(tags=[PROTOCOL], responses=_ERRORS)

    @models.get("")
    async def metadata() -> dict[str, Any]:
        """The model's inputs and outputs, and what evodeploy knows of it."""
        here = backend()
        return {
            "name": name,
            "versions": ["1"],
            "platform": f"evodeploy_{here.engine}",
            "inputs": [protocol.tensor_metadata(spec) for spec in here.inputs],
            "outputs": [protocol.tensor_metadata(spec) for spec in here.outputs],
            "parameters": _facts(here.info),
        }

    @models.get("/ready")
    async def model_ready() -> dict[str, Any]:
        """Whether this model is there."""
        backend()
        return {"name": name, "ready": True}

    @models.post("/infer", openapi_extra=_body({"application/json": _INFERENCE}))
    async def infer(request: Request) -> Response:
        """Outputs for prepared images, in JSON or with the binary tensor extension."""
        here = backend()
        names = [spec.name for spec in here.outputs]
        body, length = await request.body(), request.headers.get(protocol.JSON_LENGTH)
        parsed = await asyncio.to_thread(protocol.parse_request, body, length, here.inputs[0], names)
        answer, header = protocol.make_response(name, parsed, await timed(here.run(parsed.images)))
        if header is None:
            return Response(answer, media_type="application/json")
        return Response(answer, media_type="application/octet-stream", headers={protocol.JSON_LENGTH: str(header)})

    app.include_router(models, prefix="/v2/models/{model}", dependencies=[Depends(of_model)])
    app.include_router(models, prefix="/v2/models/{model}/versions/{version}", dependencies=[Depends(of_version)])

    @app.post(
        "/v1/predict",
        tags=["images"],
        responses=_ERRORS,
        openapi_extra=_body({"image/*": _BYTES, "multipart/form-data": _FORM}),
    )
    async def predict(request: Request, top: int = 5) -> dict[str, Any]:
        """The most probable classes of an image file, the body or a form's one file; and which tokens were kept."""
        here = backend()
        body = await _image_of(request)
        classes = min(top, here.info.top_k or here.info.num_classes or top)
        check_classes(here.info, classes)
        prepared = await asyncio.to_thread(_prepared, body, here.info, limits.pixels)
        outputs = await timed(here.run(prepared[None]))
        (prediction,) = predictions_of(outputs, here.info, classes, [0.0], 0.0)
        if not all(math.isfinite(label.probability) for label in prediction.labels):
            raise RuntimeFailedError("the model's output for this image is no number: `evodeploy verify` the artefact")
        return {
            "labels": [
                {"name": label.name, "index": label.index, "probability": label.probability}
                for label in prediction.labels
            ],
            "selections": _selections(outputs, here.info),
        }

    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return _page("index.html")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return _page("api.html")

    for file, kind in PAGE_TYPES.items():
        app.get(f"/{file}", include_in_schema=False)(_asset(file, kind))
    return app


async def _image_of(request: Request) -> bytes:
    """The image's bytes: the body, or the one file of a form."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        return await request.body()
    async with request.form(max_files=1) as form:
        uploads = [value for value in form.values() if isinstance(value, UploadFile)]
        if len(uploads) != 1:
            raise InputError(f"the form has {len(uploads)} files, expected an image")
        return await uploads[0].read()


def _prepared(body: bytes, info: ModelInfo, pixels: int) -> Array:
    """The image as the engine takes it; its size is looked at before it is decoded."""
    try:
        with Image.open(io.BytesIO(body), formats=FORMATS) as image:
            size = image.width * image.height
            if size > pixels:
                raise BadFileError(f"the image has {size} pixels, expected {pixels} at most")
            image.load()
    except BadFileError:
        raise
    except Exception as error:  # decoders raise whatever comes to them of bytes that are no image
        raise BadFileError(f"the body is not a readable image of {', '.join(FORMATS)}") from error
    return prepare(image, info)


def _selections(outputs: dict[str, Array], info: ModelInfo) -> list[dict[str, Any]]:
    """For each selection the tokens of a side of its grid, and the positions on it that were kept."""
    return [{"side": each.side, "kept": sorted(each.own_positions[0].tolist())} for each in told(outputs, info)]


def _facts(info: ModelInfo) -> dict[str, Any]:
    return {
        "model": info.model,
        "precision": info.precision,
        "image_size": info.image_size,
        "input_format": info.input_format,
        "keep_ratios": list(info.keep_ratios),
        "mean": list(info.preprocessing.mean),
        "std": list(info.preprocessing.std),
        "classes": info.num_classes,
    }


def _status(error: EvodeployError) -> int:
    if isinstance(error, _NoModelError):
        return 404
    return 400 if isinstance(error, (BadFileError, UsageError)) else 500


def _page(name: str) -> HTMLResponse:
    headers = {"Content-Security-Policy": PAGE_POLICY, "X-Content-Type-Options": "nosniff"}
    return HTMLResponse((PAGE / name).read_text("utf-8"), headers=headers)


def _asset(name: str, kind: str) -> Callable[[], Awaitable[Response]]:
    async def asset() -> Response:
        return Response((PAGE / name).read_bytes(), media_type=kind)

    return asset


def _body(content: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {kind: {"schema": each} for kind, each in content.items()}}}


_ERROR = {"content": {"application/json": {"schema": {"type": "object", "properties": {"error": {"type": "string"}}}}}}
_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The request is not one that the model takes", **_ERROR},
    401: {"description": "A bearer token is needed", **_ERROR},
    404: {"description": "There is no such model or version", **_ERROR},
    413: {"description": "The request is too large", **_ERROR},
    422: {"description": "A parameter is of another type", **_ERROR},
    429: {"description": "Too many requests at once", **_ERROR},
    500: {"description": "The model failed", **_ERROR},
    504: {"description": "Not done in time", **_ERROR},
}
_BYTES = {"type": "string", "format": "binary"}
_FORM = {"type": "object", "required": ["image"], "properties": {"image": _BYTES}}
_INFERENCE = {
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
