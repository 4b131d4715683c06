"""The methods of the Open Inference Protocol's gRPC service, as endpoints whose bodies are messages.

They share the gate, the metrics and the refusals of the HTTP service. `grpc_server.py` lets gRPC clients call them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request, Response

from evodeploy import __version__
from evodeploy.serving import messages, tensors
from evodeploy.serving.backend import Backend
from evodeploy.serving.gate import Gate, Room
from evodeploy.serving.metrics import Measured, Metrics
from evodeploy.serving.protocol import InferenceRequest
from evodeploy.serving.refusals import answer_errors
from evodeploy.serving.settings import Limits
from evodeploy.specs import TensorSpec

SERVICE = "/inference.GRPCInferenceService"
OPEN = frozenset({f"{SERVICE}/ServerLive", f"{SERVICE}/ServerReady"})
METHODS = dict.fromkeys(OPEN, "GET") | {
    f"{SERVICE}/ServerMetadata": "GET",
    f"{SERVICE}/ModelReady": "GET",
    f"{SERVICE}/ModelMetadata": "GET",
    f"{SERVICE}/ModelInfer": "POST",
}


def create_calls(
    backend: Callable[[], Backend], name: str, limits: Limits, token: str | None, metrics: Metrics, room: Room
) -> FastAPI:
    """Create the methods of the one model `name`, each under its path.

    `limits`, `token` and `metrics` are the same as in `app.create_app`. `room` is shared with the requests over HTTP.
    """
    calls = FastAPI(openapi_url=None)
    calls.add_middleware(Gate, limits=limits, token=token, exempt=OPEN, room=room, whole=True)
    calls.add_middleware(Measured, metrics=metrics)
    answer_errors(calls)

    @calls.get(f"{SERVICE}/ServerLive")
    async def live() -> Response:
        return _answer("ServerLiveResponse", live=True)

    @calls.get(f"{SERVICE}/ServerReady")
    async def ready() -> Response:
        backend()
        return _answer("ServerReadyResponse", ready=True)

    @calls.get(f"{SERVICE}/ServerMetadata")
    async def server() -> Response:
        return _answer("ServerMetadataResponse", name="evodeploy", version=__version__)

    @calls.get(f"{SERVICE}/ModelReady")
    async def model_ready(request: Request) -> Response:
        asked = messages.read("ModelReadyRequest", await request.body())
        tensors.check_named(name, asked.name, asked.version or tensors.VERSION)
        backend()
        return _answer("ModelReadyResponse", ready=True)

    @calls.get(f"{SERVICE}/ModelMetadata")
    async def model(request: Request) -> Response:
        asked = messages.read("ModelMetadataRequest", await request.body())
        tensors.check_named(name, asked.name, asked.version or tensors.VERSION)
        facts = tensors.metadata_of(backend(), name)
        del facts["parameters"]  # the message has no field for them
        return _answer("ModelMetadataResponse", **facts)

    @calls.post(f"{SERVICE}/ModelInfer")
    async def infer(request: Request) -> Response:
        body = await request.body()

        def read(spec: TensorSpec, outputs: list[str]) -> InferenceRequest:
            asked = messages.read("ModelInferRequest", body)
            tensors.check_named(name, asked.model_name, asked.model_version or tensors.VERSION)
            return messages.request_of(asked, spec, outputs)

        parsed, answer = await tensors.inferred(backend(), room, read)
        return Response(messages.response_of(name, tensors.VERSION, parsed, answer.outputs, answer.shown))

    return calls


def _answer(kind: str, **fields: Any) -> Response:
    return Response(messages.write(kind, **fields))
