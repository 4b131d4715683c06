"""Headers that do not end, on a real server without Ray."""

from __future__ import annotations

import socket

import pytest
from uvicorn.protocols.http import auto

from evodeploy.serving import connections


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


def test_ordinary_requests_one_after_another_are_answered(connect, monkeypatch):
    monkeypatch.setattr(connections, "SECONDS", 5.0)
    ready = b"GET /v2/health/ready HTTP/1.1\r\nHost: x\r\n"
    with connect() as client:
        for _ in range(3):
            client.sendall(ready + b"\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 200")
        client.sendall(ready + b"X-Large: " + b"x" * 70_000 + b"\r\nConnection: close\r\n\r\n")
        assert answer(client).startswith(b"HTTP/1.1 431")
