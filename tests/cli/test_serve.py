"""`evodeploy serve`: what it refuses before Ray is started. A service that runs: tests/serving/test_service.py."""

from __future__ import annotations

import contextlib
import socket
import sys
import types

import pytest

from evodeploy.serving import service
from evodeploy.serving.settings import Limits, Settings


@pytest.fixture(autouse=True)
def no_ray(monkeypatch):
    monkeypatch.setattr(service, "_import_ray", lambda: pytest.fail("Ray was imported"))
    monkeypatch.delenv("EVODEPLOY_TOKEN", raising=False)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--token-file", "none.txt"), "none.txt does not exist (expected a bearer token)"),
        (("--token-file", "/dev/zero"), "/dev/zero is a device, not a file"),
        (("--token-file", "lines.txt"), "the token in lines.txt has spaces, lines or other characters"),
        (("--token-file", "cat.txt"), "the token in cat.txt has spaces, lines or other characters"),
        (("--name", "a/b"), "the name is 'a/b', expected letters"),
        (("--name", ".."), "the name is '..', expected letters"),
        (("--port", "8099"), "requests and metrics would share port 8099"),
        (("--allow-host", "a b"), "--allow-host is 'a b', expected the name or address of a host"),
        (("--token-file", "empty.txt"), "empty.txt is empty, expected a bearer token"),
        (("--replicas", "3", "--max-replicas", "2"), "3 replicas that may become 2"),
        (("--engine", "torhc"), "the engine 'torhc' does not run"),
        (("--replicas", "0"), "--replicas"),
        (("--timeout", "0"), "--timeout"),
        (("--host", "999.1.1.1"), "'999.1.1.1' is no address"),
    ],
)
def test_what_cannot_be_served_is_refused(cli, small_onnx, tmp_path, monkeypatch, options, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "lines.txt").write_text("a\nb")
    (tmp_path / "cat.txt").write_bytes("猫".encode("utf-16"))
    code, out, err = cli("serve", small_onnx, *options)
    assert (code, out) == (2, "")
    assert told in err


def test_an_artefact_that_is_none_is_told_before_anything_starts(cli, tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    code, out, err = cli("serve", tmp_path / "broken.onnx")
    assert (code, out) == (4, "")
    assert "broken.onnx" in err


def test_without_the_extra_it_is_named(cli, small_onnx, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "ray", None)
    code, out, err = cli("serve", small_onnx)
    assert (code, out) == (3, "")
    assert 'pip install "evodeploy[serve]"' in err


@pytest.mark.parametrize(
    ("running", "applications", "sentence"),
    [
        (None, (), "port {port} of 127.0.0.1 cannot be listened on"),
        (("127.0.0.1", 8000), (), "listens on 127.0.0.1:8000, and a Ray has one: give --host 127.0.0.1 --port 8000"),
        (
            ("127.0.0.1", 8000),
            ("evodeploy",),
            "already: stop it, or hand it this file by --update",
        ),
    ],
)
def test_a_joined_ray_that_cannot_listen_as_asked_is_refused(
    cli, small_onnx, monkeypatch, running, applications, sentence
):
    from ray import serve

    monkeypatch.setattr(service, "_import_ray", lambda: None)
    monkeypatch.setattr(service, "joined_ray", lambda address, namespace: contextlib.nullcontext())
    monkeypatch.setattr(service, "_running_serve", lambda: running)
    monkeypatch.setattr(serve, "status", lambda: types.SimpleNamespace(applications=dict.fromkeys(applications)))
    monkeypatch.setattr(service, "_listen", lambda settings: pytest.fail("Serve was started"))
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, out, err = cli("serve", small_onnx, "--port", port, "--ray", "auto")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert sentence.format(port=port) in err


def test_ray_cuts_no_body_that_the_service_takes(monkeypatch, tmp_path):
    from ray import serve

    started = []
    monkeypatch.setattr(serve, "start", lambda **options: started.append(options["http_options"]))
    service._listen(Settings(tmp_path / "a.onnx", (), "a", limits=Limits(body=16 << 20, seconds=30)))
    assert started[0]["request_timeout_s"] == 1024 + 2 * 30  # 16 MiB at 16 KiB a second, a stall, the answer
