"""gRPC of a service in one process: Triton's ordinary client, the same answers and limits as over HTTP."""

from __future__ import annotations

import asyncio
import concurrent.futures
import struct
import threading
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from served import NAME, PICTURE, value, wait_until
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

import evodeploy
from evodeploy import __version__
from evodeploy.errors import RuntimeFailedError, UsageError
from evodeploy.serving import embedded, grpc_server
from evodeploy.serving.gate import HEADER_BYTES, Room
from evodeploy.serving.service import running
from evodeploy.serving.settings import Limits, Settings

IMAGES = np.random.default_rng(3).standard_normal((3, 3, 64, 64), dtype=np.float32)
SIZE = IMAGES[0].nbytes
Code = grpc.StatusCode


@pytest.fixture
def serve(serve):
    """The same, with gRPC."""
    return lambda **settings: serve(grpc_port=0, **settings)


def client_of(service):
    return tritonclient.grpc.InferenceServerClient(service.grpc)


def given(module, images=IMAGES):
    tensor = module.InferInput("images", images.shape, "FP32")
    tensor.set_data_from_numpy(images)
    return [tensor]


def message(images=IMAGES, typed=False, **fields):
    """A ModelInferRequest as a client without a library would make it."""
    asked = service_pb2.ModelInferRequest(**{"model_name": NAME} | fields)
    tensor = asked.inputs.add(name="images", datatype="FP32", shape=images.shape)
    if typed:
        tensor.contents.fp32_contents.extend(images.ravel().tolist())
    else:
        asked.raw_input_contents.append(images.tobytes())
    return asked


def refused(call, *given, **more):
    """The status and the words that a call is refused with."""
    with pytest.raises(grpc.RpcError) as error:
        call(*given, **more)
    return error.value.code(), error.value.details()


def test_tritons_client_is_answered_as_over_http(serve):
    with (
        serve() as service,
        client_of(service) as here,
        tritonclient.http.InferenceServerClient(service.address.removeprefix("http://")) as http,
    ):
        assert service.to_dict()["grpc"] == service.grpc
        assert here.is_server_live() and here.is_server_ready()
        assert here.is_model_ready(NAME) and here.is_model_ready(NAME, "1")
        server = here.get_server_metadata()
        assert (server.name, server.version) == ("evodeploy", __version__)
        described, facts = here.get_model_metadata(NAME, as_json=True), http.get_model_metadata(NAME)
        for tensor in (*described["inputs"], *described["outputs"]):
            tensor["shape"] = [int(size) for size in tensor["shape"]]
        del facts["parameters"]
        assert described == facts
        names = [tensor["name"] for tensor in facts["outputs"]]
        answer = here.infer(NAME, given(tritonclient.grpc), request_id="seven")
        expected = http.infer(NAME, given(tritonclient.http))
        assert [tensor.name for tensor in answer.get_response().outputs] == names
        for name in names:
            np.testing.assert_array_equal(answer.as_numpy(name), expected.as_numpy(name))
        response = answer.get_response()
        assert (response.id, response.model_name, response.model_version) == ("seven", NAME, "1")
        assert response.parameters["keep_ratio"].string_param == expected.get_response()["parameters"]["keep_ratio"]
        wanted = [tritonclient.grpc.InferRequestedOutput(names[-1])]
        alone = here.infer(NAME, given(tritonclient.grpc), outputs=wanted)
        assert [tensor.name for tensor in alone.get_response().outputs] == names[-1:]
        np.testing.assert_array_equal(alone.as_numpy(names[-1]), expected.as_numpy(names[-1]))


def test_typed_contents_are_answered_in_kind(serve):
    with serve() as service, grpc.insecure_channel(service.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        raw, typed = stub.ModelInfer(message()), stub.ModelInfer(message(typed=True))
        assert len(raw.raw_output_contents) == len(raw.outputs)
        assert not any(tensor.HasField("contents") for tensor in raw.outputs)
        assert not typed.raw_output_contents
        for tensor, data in zip(typed.outputs, raw.raw_output_contents, strict=True):
            fields = {"FP32": ("fp32_contents", "<f4"), "INT64": ("int64_contents", "<i8")}
            field, dtype = fields[tensor.datatype]
            np.testing.assert_array_equal(getattr(tensor.contents, field), np.frombuffer(data, dtype))


def test_requests_choose_a_keep_ratio_or_its_floor(small_elastic):
    with (
        running(Settings(small_elastic, port=0, grpc_port=0, max_batch=2)) as service,
        client_of(service) as here,
        tritonclient.http.InferenceServerClient(service.address.removeprefix("http://")) as http,
    ):
        for parameters in ({"keep_ratio": 0.25}, {"least_keep_ratio": 0.75}, {"keep_ratio": 1}):
            answer = here.infer(NAME, given(tritonclient.grpc), parameters=parameters)
            expected = http.infer(NAME, given(tritonclient.http), parameters=parameters)
            np.testing.assert_array_equal(answer.as_numpy("logits"), expected.as_numpy("logits"))
            ratio = answer.get_response().parameters["keep_ratio"].string_param
            assert ratio == expected.get_response()["parameters"]["keep_ratio"]
            assert ratio == "0.25" or float(ratio) >= 0.75
        for value_of_it in (0.01, 1.5, float("nan"), "0.5", True):
            with pytest.raises(InferenceServerException, match="INVALID_ARGUMENT"):
                here.infer(NAME, given(tritonclient.grpc), parameters={"keep_ratio": value_of_it})


def test_hostile_messages_are_refused_in_a_sentence_and_do_no_harm(serve, monkeypatch):
    with (
        serve(limits=Limits(body=1 << 20)) as service,
        grpc.insecure_channel(service.grpc) as channel,
        httpx.Client(base_url=service.address) as http,
    ):
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        bytes_to = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        for code, words, asked in (
            (Code.NOT_FOUND, "there is no model 'other' here", message(model_name="other")),
            (Code.NOT_FOUND, "there is no model 'a/b' here", message(model_name="a/b")),
            (Code.NOT_FOUND, "there is no version '2'", message(model_version="2")),
            (Code.INVALID_ARGUMENT, "classification extension", with_classes()),
        ):
            found, details = refused(stub.ModelInfer, asked)
            assert (found, words in details) == (code, True), details
        assert refused(bytes_to, b"\xff" * 99) == (Code.INVALID_ARGUMENT, "the bytes are not a valid ModelInferRequest")
        assert refused(channel.stream_unary("/inference.GRPCInferenceService/ModelInfer"), iter(())) == (
            Code.INVALID_ARGUMENT,
            "the call has no message",
        )
        code, details = refused(bytes_to, b"x" * ((1 << 20) + 1))
        assert (code, "larger than max" in details) == (Code.RESOURCE_EXHAUSTED, True)
        code, details = refused(stub.ModelInfer, message(), compression=grpc.Compression.Gzip)
        assert (code, details) == (Code.UNIMPLEMENTED, "Compression algorithm 'gzip' is disabled.")
        assert refused(channel.unary_unary("/inference.GRPCInferenceService/ModelStreamInfer"), b"")[0] == (
            Code.UNIMPLEMENTED
        )
        assert refused(channel.unary_unary("/metrics"), b"")[0] == Code.UNIMPLEMENTED
        large = [("x", "y" * HEADER_BYTES)]
        assert refused(stub.ModelInfer, message(), metadata=large)[0] == Code.RESOURCE_EXHAUSTED
        assert value(http, "evodeploy_requests_total", status="404") == 3
        assert value(http, "evodeploy_requests_total", status="400") == 2
        assert stub.ModelInfer(message()).raw_output_contents


def with_classes():
    asked = message()
    asked.outputs.add(name="logits").parameters["classification"].int64_param = 3
    return asked


def test_an_error_that_nobody_expects_says_nothing_of_the_inside(serve, monkeypatch, caplog):
    def broken(*_):
        raise ZeroDivisionError("secret")

    monkeypatch.setattr("evodeploy.serving.tensors.inferred", broken)
    with serve() as service, grpc.insecure_channel(service.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert refused(stub.ModelInfer, message()) == (Code.INTERNAL, "the server failed: its log says why")
    assert "ZeroDivisionError: secret" in caplog.text


def test_the_token_is_needed_but_for_health(serve):
    with serve(token="secret") as service, grpc.insecure_channel(service.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert stub.ServerLive(service_pb2.ServerLiveRequest()).live
        assert stub.ServerReady(service_pb2.ServerReadyRequest()).ready
        model = service_pb2.ModelReadyRequest(name=NAME)
        for call, asked in (
            (stub.ServerMetadata, service_pb2.ServerMetadataRequest()),
            (stub.ModelReady, model),
            (stub.ModelMetadata, service_pb2.ModelMetadataRequest(name=NAME)),
            (stub.ModelInfer, message()),
        ):
            for metadata in ((), [("authorization", "Bearer other")], [("authorization-bin", b"Bearer secret")]):
                assert refused(call, asked, metadata=metadata) == (Code.UNAUTHENTICATED, "a bearer token is needed")
            call(asked, metadata=[("authorization", "Bearer secret")])
        twice = [("authorization", "Bearer secret")] * 2
        assert refused(stub.ModelReady, model, metadata=twice)[0] == Code.INVALID_ARGUMENT


def test_who_has_no_token_is_refused_before_a_message_comes(serve):
    never = threading.Event()
    with serve(token="secret") as service, grpc.insecure_channel(service.grpc) as channel:
        call = channel.stream_unary("/inference.GRPCInferenceService/ModelInfer")
        waiting = call.future((never.wait() and b"" for _ in "1"), timeout=60)
        assert waiting.code() == Code.UNAUTHENTICATED
        never.set()


def test_both_protocols_share_the_places(serve, held, monkeypatch):
    room = Room(Limits(admitted=2))
    monkeypatch.setattr(embedded, "Room", lambda limits: room)
    with (
        serve(limits=Limits(admitted=2)) as service,
        httpx.Client(base_url=service.address) as http,
        grpc.insecure_channel(service.grpc) as channel,
        concurrent.futures.ThreadPoolExecutor(2) as pool,
    ):
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        first = pool.submit(http.post, "/v1/predict", content=PICTURE.read_bytes())
        second = stub.ModelInfer.future(message())
        wait_until(lambda: room.admitted == 2)
        others = [stub.ModelInfer.future(message()) for _ in range(20)]
        wanted = {(Code.RESOURCE_EXHAUSTED, "too many requests at once: try again")}
        assert {(each.code(), each.details()) for each in others} == wanted
        assert http.post("/v1/predict", content=PICTURE.read_bytes()).status_code == 429
        assert stub.ServerLive(service_pb2.ServerLiveRequest()).live
        assert value(http, "evodeploy_requests_total", status="429") == 21
        held.set()
        assert first.result().status_code == 200
        assert second.result().model_name == NAME
        assert value(http, "evodeploy_request_seconds_count") == 2
        assert value(http, "evodeploy_images_total") == 4


def test_deadlines_of_the_service_and_clients_that_leave(serve, held):
    with serve(limits=Limits(seconds=0.3)) as service, grpc.insecure_channel(service.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        code, details = refused(stub.ModelInfer, message())
        assert (code, "0.3 s" in details) == (Code.DEADLINE_EXCEEDED, True)  # of its message, on a slow machine
        held.set()
        never = threading.Event()
        stalled = channel.stream_unary("/inference.GRPCInferenceService/ModelInfer")
        waiting = stalled.future((never.wait() and b"" for _ in "1"), timeout=60)
        assert (waiting.code(), waiting.details()) == (Code.DEADLINE_EXCEEDED, "nothing of the request came for 0.3 s")
        never.set()
    held.clear()
    with (
        serve() as service,
        grpc.insecure_channel(service.grpc) as channel,
        httpx.Client(base_url=service.address) as http,
    ):
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        before = held.arrived
        left = stub.ModelInfer.future(message())
        wait_until(lambda: held.arrived > before)
        left.cancel()  # as a client's deadline does
        wait_until(lambda: value(http, "evodeploy_requests_ongoing") == 1)  # the one that asks: the place is free again
        assert value(http, "evodeploy_requests_total", status="499") == 1
        held.set()


def test_a_call_that_was_begun_is_answered_and_a_new_one_refused_while_it_drains(serve, held):
    with serve() as service:
        channel = grpc.insecure_channel(service.grpc)
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        begun, late = stub.ModelInfer.future(message()), []
        wait_until(lambda: held.arrived == 1)

        def ask():
            while Code.UNAVAILABLE not in late:
                try:
                    stub.ServerLive(service_pb2.ServerLiveRequest())
                except grpc.RpcError as error:
                    late.append(error.code())
            held.set()

        asking = threading.Thread(target=ask)
        asking.start()
    asking.join()
    assert begun.result().model_name == NAME
    assert late == [Code.UNAVAILABLE]
    channel.close()


def test_a_call_that_never_ends_holds_it_no_longer_than_the_limit(serve):
    never = threading.Event()
    with serve(limits=Limits(seconds=0.5)) as service:
        channel = grpc.insecure_channel(service.grpc)
        call = channel.stream_unary("/inference.GRPCInferenceService/ModelInfer")
        waiting = call.future((never.wait() and b"" for _ in "1"), timeout=60)
        with httpx.Client(base_url=service.address) as http:
            wait_until(lambda: waiting.done() or value(http, "evodeploy_requests_ongoing") == 2)
    assert waiting.code() in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED)
    never.set()
    channel.close()


def test_tls_with_the_certificate_of_https(serve, certificate):
    trusted = grpc.ssl_channel_credentials(certificate.certificate.read_bytes())
    with serve(tls=certificate) as service:
        address = service.grpc.replace("127.0.0.1", "localhost")
        with tritonclient.grpc.InferenceServerClient(address, creds=trusted, ssl=True) as client:
            assert client.infer(NAME, given(tritonclient.grpc)).as_numpy("logits").shape == (3, 10)
        with grpc.insecure_channel(address) as channel:
            live = service_pb2_grpc.GRPCInferenceServiceStub(channel).ServerLive
            assert refused(live, service_pb2.ServerLiveRequest(), timeout=60)[0] == Code.UNAVAILABLE


@pytest.mark.parametrize(("grpcs", "reason", "status"), [(False, "certificate", "200"), (True, "UNAVAILABLE", "OK")])
def test_a_load_test_trusts_the_certificates_of_a_file(serve, certificate, monkeypatch, grpcs, reason, status):
    with serve(tls=certificate) as service:
        url = (f"grpcs://{service.grpc}" if grpcs else service.address).replace("127.0.0.1", "localhost")
        with pytest.raises(RuntimeFailedError, match=reason):
            evodeploy.load_test(url, model=NAME)
        if grpcs:
            monkeypatch.setenv("SSL_CERT_FILE", "/none.pem")
            with pytest.raises(UsageError, match=r"/none.pem does not exist .*SSL_CERT_FILE"):
                evodeploy.load_test(url, model=NAME)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate.certificate))
        (load,) = evodeploy.load_test(url, model=NAME, rates=(20,), seconds=0.5).loads
    assert load.answers == {status: len(load.outcomes)}


def test_its_port_is_its_own_and_named_in_the_log(serve, logged):
    with serve() as service:
        assert f"{service.grpc} answers by gRPC" in list(logged)
        port = int(service.grpc.rpartition(":")[2])
        with pytest.raises(UsageError, match=f"cannot listen on port {port} of .*: choose another with --grpc-"):
            running(Settings(service.artefact, port=0, grpc_port=port)).__enter__()


def test_the_largest_limits_are_taken(serve):
    with serve(limits=Limits(body=4096 << 20, seconds=1e9)) as service, client_of(service) as client:
        assert client.is_server_live()


def test_an_answer_that_nobody_reads_is_not_held_for_ever(monkeypatch):
    """The client lets nothing come: in HTTP/2, by a window of no bytes."""

    async def answers(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * 1000})

    async def run():
        settings = Settings(Path("none"), grpc_port=0, limits=Limits(seconds=0.1))
        server = grpc_server.GrpcServer(answers, {"/a/b": "GET"}, settings)
        await server.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, struct.pack(">HI", 4, 0)))
        writer.write(frame(1, 4, 1, HEADER) + frame(0, 1, 1, bytes(5)))
        await asyncio.wait_for(reader.read(), 60)
        writer.close()
        await server.stop()

    monkeypatch.setattr(grpc_server, "AGE", 0.2)
    asyncio.run(run())


def frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


HEADER = b"".join(
    b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value
    for name, value in {
        b":method": b"POST", b":scheme": b"http", b":path": b"/a/b", b":authority": b"localhost",
        b"te": b"trailers", b"content-type": b"application/grpc",
    }.items()
)  # fmt: skip
