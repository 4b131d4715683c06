"""Headers that do not end and bodies that drip, on a real server without Ray."""

from __future__ import annotations

import json
import select
import socket
import threading
import time

import pytest
from uvicorn.protocols.http import auto

from evodeploy.serving import arrivals, connections, gate


@pytest.fixture
def connect(app, listening, monkeypatch):
    """A function that connects to a service as Ray's proxy takes connections."""
    monkeypatch.setattr(auto, "AutoHTTPProtocol", auto.AutoHTTPProtocol)  # put back after the test
    assert connections.bound_connections() == []
    host, port = listening(app()).split(":")

    def connected():
        return socket.create_connection((host, int(port)), timeout=60)

    return connected


def answer(client):
    parts = iter(lambda: client.recv(65536), b"")
    return b"".join(parts)


def test_a_header_that_does_not_end_in_time_is_refused(connect, monkeypatch):
    monkeypatch.setattr(connections, "SECONDS", 0.2)
    with connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        assert answer(client).startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    with connect() as client:
        assert answer(client) == b""  # a connection without a request gets no answer, and ends


def test_a_header_of_any_size_is_not_taken(connect):
    with connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-Large: ")
        try:
            for _ in range(100):
                client.sendall(b"x" * 65536)
        except OSError:  # closed before all was sent
            return
        pytest.fail("all of it was taken")


@pytest.mark.parametrize("before", [b"", b"GET /v2/health/ready HTTP/1.1\r\nHost: x\r\n\r\n"])
def test_what_is_no_request_is_refused_in_json(connect, before):
    with connect() as client:
        client.sendall(before)
        if before:
            assert client.recv(65536).startswith(b"HTTP/1.1 200")
        client.sendall(b"GARBAGE\r\n\r\n")
        head, _, body = answer(client).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n")
        assert json.loads(body) == {"error": "the request is not valid HTTP/1.1"}


REFUSED = b"POST /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n"


@pytest.mark.parametrize("first", [b"GET /v2/health/ready HTTP/1.1\r\nHost: x\r\n\r\n", REFUSED])
def test_what_follows_an_answer_and_is_no_request_keeps_no_connection(connect, monkeypatch, first):
    monkeypatch.setattr(connections, "SECONDS", 0.2)
    with connect() as client:
        client.sendall(first)
        assert client.recv(65536)[:12] in (b"HTTP/1.1 200", b"HTTP/1.1 413")
        client.sendall(b"\r\n")
        client.settimeout(10)
        assert answer(client) == b""


def test_the_rest_of_a_refused_body_is_dropped_and_the_next_request_is_answered(connect, monkeypatch):
    monkeypatch.setattr(connections, "SECONDS", 0.2)
    monkeypatch.setattr(connections, "RATE", 0)  # all of it comes fast enough
    with connect() as client:
        client.sendall(REFUSED.replace(b"99999999", b"20000000"))
        assert client.recv(65536).startswith(b"HTTP/1.1 413")
        client.sendall(bytes(10_000_000))
        time.sleep(0.5)
        client.sendall(bytes(10_000_000) + b"GET /v2/health/ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert answer(client).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(("body", "expected"), [(b"", b"HTTP/1.1 200"), (b"image", b"HTTP/1.1 400")])
def test_an_offer_of_http_2_is_not_taken_and_a_body_with_it_is_refused_by_name(connect, body, expected):
    """`curl --http2` offers it so; the parser then drops the body and whatever follows."""
    method, path = (b"POST", b"v1/predict") if body else (b"GET", b"v2/health/ready")
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    with connect() as client:
        head = method + b" /" + path + b" HTTP/1.1\r\nHost: x\r\n" + offer
        client.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        client.settimeout(10)
        given = answer(client)
    assert given.startswith(expected)
    assert (b"(Upgrade) is not accepted" in given) == bool(body)


def test_ordinary_requests_one_after_another_are_answered(connect, monkeypatch):
    monkeypatch.setattr(connections, "SECONDS", 5.0)
    ready = b"GET /v2/health/ready HTTP/1.1\r\nHost: x\r\n"
    with connect() as client:
        for _ in range(3):
            client.sendall(ready + b"\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 200")
        client.sendall(ready + b"X-Large: " + b"x" * 70_000 + b"\r\nConnection: close\r\n\r\n")
        assert answer(client).startswith(b"HTTP/1.1 431")


@pytest.mark.parametrize("reads", [False, True])
def test_an_answer_that_nobody_reads_is_dropped(listening, monkeypatch, reads):
    monkeypatch.setattr(auto, "AutoHTTPProtocol", connections.BoundedProtocol)
    monkeypatch.setattr(connections, "SECONDS", 0.3)
    lost, size = threading.Event(), 30 << 20
    ended = connections.BoundedProtocol.connection_lost

    def connection_lost(self, exc):
        ended(self, exc)
        lost.set()

    async def large(scope, receive, send):
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
        await send({"type": "http.response.body", "body": bytes(size)})

    monkeypatch.setattr(connections.BoundedProtocol, "connection_lost", connection_lost)
    host, port = listening(large).split(":")
    with socket.create_connection((host, int(port)), timeout=60) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        if reads:
            assert len(answer(client)) > size
        else:
            assert lost.wait(60)


def test_connections_that_drip_keep_no_other_out(app, listening, monkeypatch):
    monkeypatch.setattr(gate, "BODIES", 3)
    monkeypatch.setattr(arrivals, "PATIENCE", -1.0)  # late at once
    host, port = listening(app()).split(":")
    clients = [socket.create_connection((host, int(port)), timeout=60) for _ in range(4)]
    *dripping, quick = clients
    head = f"POST /v1/predict HTTP/1.1\r\nHost: {host}\r\n"
    for client in dripping:
        client.sendall(f"{head}Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n".encode())
        assert client.recv(65536).startswith(b"HTTP/1.1 100")  # its body is waited for
        client.sendall(b"1\r\nx\r\n")
    for _ in range(3):
        quick.sendall(f"{head}Content-Length: 5\r\n\r\nhello".encode())
        assert quick.recv(65536).startswith(b"HTTP/1.1 400")  # it is no picture
    answered, _, _ = select.select(dripping, [], [], 60)
    assert [client.recv(65536)[:12] for client in answered] == [b"HTTP/1.1 408"]
    for client in clients:
        client.close()
