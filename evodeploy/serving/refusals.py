"""The conversion of errors to answers: a status, and the message as `error` in JSON."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from evodeploy.errors import BadFileError, EvodeployError, UnavailableError, UsageError
from evodeploy.serving.controller import BusyError
from evodeploy.serving.protocol import check_known
from evodeploy.text import printable


class NoModelError(UsageError):
    """The path names an unknown model or version."""


class NotReadyError(UnavailableError):
    """The model cannot be served now."""


async def check_query(request: Request) -> None:
    """Raise InputError if a request has a query parameter that its endpoint does not know."""
    known = [parameter.alias for parameter in request.scope["route"].dependant.query_params]
    check_known("query parameter", request.query_params, known)


def answer_errors(app: FastAPI) -> None:
    """Make `app` answer every error with its reason."""

    @app.exception_handler(EvodeployError)
    async def refused(request: Request, error: EvodeployError) -> JSONResponse:
        headers = {"Retry-After": "1"} if isinstance(error, BusyError) else None
        return JSONResponse({"error": printable(str(error))}, _status(error), headers)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": printable(str(error.detail))}, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return JSONResponse({"error": printable(f"{' '.join(map(str, first['loc']))}: {first['msg']}")}, 422)

    @app.exception_handler(Exception)  # its traceback is logged
    async def failed(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": "the server failed: its log says why"}, 500)


def _status(error: EvodeployError) -> int:
    if isinstance(error, NoModelError):
        return 404
    if isinstance(error, BusyError):
        return 429
    if isinstance(error, NotReadyError):
        return 503
    return 400 if isinstance(error, (BadFileError, UsageError)) else 500
