"""Load tests over gRPC: tensors, by the Open Inference Protocol."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from typing import Any

from evodeploy.errors import RuntimeFailedError, needs
from evodeploy.files import open_regular
from evodeploy.load_testing.arrivals import Asking
from evodeploy.load_testing.records import Reply
from evodeploy.load_testing.target import SECONDS, address_of, ratio_of, tensor_for
from evodeploy.text import brief

SCHEMES = ("grpc", "grpcs")  # grpcs uses TLS
_SERVICE = "/inference.GRPCInferenceService"


@dataclass(frozen=True)
class Calls:
    """A server, and the message to send to its model."""

    url: str
    message: bytes
    metadata: tuple[tuple[str, str], ...] = field(repr=False)
    what: str

    def asking(self) -> Asking:
        """Return a function that sends a request over its own connection. One thread may use it."""
        import grpc
        from tritonclient.grpc.service_pb2 import ModelInferResponse

        call = _channel(self.url).unary_unary(
            f"{_SERVICE}/ModelInfer", response_deserializer=ModelInferResponse.FromString
        )

        def ask() -> Reply:
            try:
                answer = call(self.message, timeout=SECONDS, metadata=self.metadata)
            except grpc.RpcError as error:
                return Reply(error.code().name)
            return Reply("OK", ratio_of(answer.parameters["keep_ratio"].string_param))

        return ask


def calls_of(url: str, model: str, token: str | None, keep_ratio: float | None) -> Calls:
    """Prepare one random tensor of the shape that the server reports for `model`.

    Raises UsageError if `url` is not an address or the input of the model is unsuitable, RuntimeFailedError if the
    server does not answer.
    """
    with needs("grpc"):
        import grpc
        from google.protobuf.json_format import MessageToDict
        from tritonclient.grpc import service_pb2
    metadata = () if token is None else (("authorization", f"Bearer {token}"),)
    asked = service_pb2.ModelMetadataRequest(name=model).SerializeToString()
    with _channel(url) as channel:
        try:
            found = channel.unary_unary(f"{_SERVICE}/ModelMetadata")(asked, timeout=SECONDS, metadata=metadata)
        except grpc.RpcError as error:
            raise RuntimeFailedError(
                f"{url} answers {error.code().name} {brief(error.details() or '', 200)}".rstrip()
            ) from error
    described = MessageToDict(service_pb2.ModelMetadataResponse.FromString(found))
    name, datatype, shape, data = tensor_for(described, model)
    message = service_pb2.ModelInferRequest(model_name=model, raw_input_contents=[data])
    message.inputs.add(name=name, datatype=datatype, shape=shape)
    if keep_ratio is not None:
        message.parameters["keep_ratio"].double_param = keep_ratio
    what = f"one {datatype} tensor of {shape} for '{model}', by gRPC"
    return Calls(url, message.SerializeToString(), metadata, what)


def _channel(url: str) -> Any:
    """Open a separate connection. Raises UsageError if `url` is not the address of a server."""
    import grpc

    scheme, host, port = address_of(url, SCHEMES, "grpc://127.0.0.1:8001")
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    if scheme == "grpcs":
        return grpc.secure_channel(place, grpc.ssl_channel_credentials(_trusted()), options)
    return grpc.insecure_channel(place, options)


def _trusted() -> bytes | None:
    """Return the certificates that HTTPS trusts, from the file in `SSL_CERT_FILE` or the system's; None for gRPC's own.

    Raises UsageError if that file cannot be read.
    """
    path = os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile
    if path is None:
        return None
    with open_regular(path, "certificates, as SSL_CERT_FILE names it") as file:
        return file.read()
