"""`evodeploy serve`: what it refuses before anything starts. A service that runs: tests/serving/test_embedded.py."""

from __future__ import annotations

import contextlib
import socket
import sys
import types

import pytest

from evodeploy import serving
from evodeploy.serving import ray_serve, service
from evodeploy.serving.settings import Limits, Settings

IMPORT_RAY = ray_serve._import_ray


@pytest.fixture(autouse=True)
def nothing_starts(monkeypatch):
    monkeypatch.setattr(service, "until_stopped", lambda announce: pytest.fail("it serves"))
    monkeypatch.setattr(ray_serve, "_import_ray", lambda: pytest.fail("Ray was imported"))
    monkeypatch.delenv("EVODEPLOY_TOKEN", raising=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--token-file", "none.txt"), "none.txt does not exist (expected a bearer token)"),
        (("--token-file", "/dev/zero"), "/dev/zero is a device, not a file"),
        (("--token-file", "lines.txt"), "the token in lines.txt has spaces, line breaks or characters beyond ASCII"),
        (("--token-file", "cat.txt"), "the token in cat.txt has spaces, line breaks or characters beyond ASCII"),
        (("--name", "a/b"), "the name is 'a/b', expected letters"),
        (("--name", ".."), "the name is '..', expected letters"),
        (("--port", "8099", "--replicas", "2"), "requests and metrics would share port 8099"),
        (("--target-p99", "50"), "leave --target-p99 out, or export the checkpoint with --elastic"),
        (("--target-p99", "50", "--replicas", "2"), "or export the checkpoint with --elastic"),
        (("--keep-ratio", "0.3:1"), "a range of keep ratios needs a target: give --target-p99 too"),
        (("--target-p99", "50", "--keep-ratio", "0.5:0.5"), "or export the checkpoint with --elastic"),
        *(
            (("--target-p99", "50", "--keep-ratio", ratios), f"--keep-ratio is '{ratios}', expected LOW:HIGH")
            for ratios in ("1:0.3", "0_3:1", "0.2", "0.2:", "a:b", "nan:1", "0.2:0.7:1", ":")
        ),
        (("--gpus", "0.5"), "gpus is for replicas on Ray"),
        (("--metrics-port", "8099"), "one process serves its metrics at its own port, at /metrics: leave --met"),
        (("--metrics-port", "8099", "--ray", "auto"), "the Ray at auto has a metrics port already"),
        (("--gpus", "0.5", "--replicas", "2"), "onnxruntime computes on the CPU: give --device cuda too"),
        (("--gpus", "1", "--replicas", "2", "--device", "cuda:1"), "--device is cuda:1, and Ray chooses the GPU"),
        (("--tls-cert", "cat.txt"), "give both --tls-cert and --tls-key"),
        (("--tls-cert", "cat.txt", "--tls-key", "none.pem"), "none.pem does not exist (expected a private key in PEM)"),
        (("--tls-cert", "cat.txt", "--tls-key", "cat.txt", "--replicas", "2"), "TLS is for one process without Ray"),
        (("--grpc-port", "8001", "--replicas", "2"), "gRPC is for one process without Ray"),
        (("--grpc-port", "8000"), "HTTP and gRPC would share port 8000: choose another --grpc-port"),
        (("--port", "0", "--replicas", "2"), "port 0 is for one process without Ray"),
        (("--allow-host", "a b"), "--allow-host is 'a b', expected the name or address of a host"),
        (("--token-file", "empty.txt"), "empty.txt is empty, expected a bearer token"),
        (("--replicas", "3", "--max-replicas", "2"), "replicas is 3 and max_replicas 2"),
        (("--engine", "torhc"), "the engine 'torhc' does not run"),
        (("--replicas", "0"), "--replicas"),
        (("--timeout", "0"), "--timeout"),
        (("--host", "999.1.1.1"), "'999.1.1.1' is not an address"),
    ],
)
def test_what_cannot_be_served_is_refused(cli, small_onnx, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "lines.txt").write_text("a\nb")
    (tmp_path / "cat.txt").write_bytes("猫".encode("utf-16"))
    code, out, err = cli("serve", small_onnx, *options)
    assert (code, out) == (2, "")
    assert message in err


def test_a_checkpoint_takes_the_gpu_of_its_replica_by_itself(small_checkpoint):
    """So it may be tried on a machine without one."""
    settings, _ = service._tried(Settings(small_checkpoint, replicas=2, gpus=1.0))
    assert settings.options.device is None


@pytest.mark.parametrize(("host", "address"), [("::1", "http://[::1]:8000"), ("127.0.0.1", "http://127.0.0.1:8000")])
def test_a_service_on_ray_has_a_url(small_onnx, monkeypatch, host, address):
    monkeypatch.setattr(ray_serve, "running", lambda *_: contextlib.nullcontext("metrics"))
    monkeypatch.setattr(ray_serve, "update", lambda *_: "metrics")
    settings = Settings(small_onnx, host=host, replicas=2)
    with service.running(settings) as started:
        assert started.address == service.update(settings).address == address


def test_an_artefact_that_is_none_is_reported_before_anything_starts(cli, tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    code, out, err = cli("serve", tmp_path / "broken.onnx")
    assert (code, out) == (4, "")
    assert "broken.onnx" in err


@pytest.mark.parametrize(
    ("package", "options", "extra"),
    [
        ("uvicorn", (), "serve"),
        ("ray", ("--replicas", "2"), "ray"),
        ("grpc", ("--port", "0", "--grpc-port", "0"), "grpc"),
    ],
)
def test_without_the_extra_it_is_named(cli, small_onnx, monkeypatch, package, options, extra):
    monkeypatch.setattr(ray_serve, "_import_ray", IMPORT_RAY)
    monkeypatch.delitem(sys.modules, "evodeploy.serving.embedded", raising=False)
    monkeypatch.delattr(serving, "embedded", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    code, out, err = cli("serve", small_onnx, *options)
    assert (code, out) == (3, "")
    assert f'pip install "evodeploy[{extra}]"' in err


def test_files_that_are_no_certificate_are_refused(cli, small_onnx, tmp_path):
    (tmp_path / "a.pem").write_text("no certificate")
    code, out, err = cli("serve", small_onnx, "--tls-cert", tmp_path / "a.pem", "--tls-key", tmp_path / "a.pem")
    assert (code, out) == (4, "")
    assert "are not a certificate and its unencrypted key in PEM" in err


@pytest.mark.parametrize(
    ("running", "applications", "sentence"),
    [
        (None, (), "cannot listen on port {port} of 127.0.0.1"),
        (
            ("127.0.0.1", 8000),
            (),
            "listens on 127.0.0.1:8000, and a Ray has only one address: give --host 127.0.0.1 --port 8000",
        ),
        (("127.0.0.1", 8000), ("evodeploy",), "already: stop it, or give it this file with --update"),
    ],
)
def test_a_joined_ray_that_cannot_listen_as_asked_is_refused(
    cli, small_onnx, monkeypatch, running, applications, sentence
):
    from ray import serve

    monkeypatch.setattr(ray_serve, "_import_ray", lambda: None)
    monkeypatch.setattr(ray_serve, "joined_ray", lambda address, namespace: contextlib.nullcontext())
    monkeypatch.setattr(ray_serve, "_running_serve", lambda: running)
    monkeypatch.setattr(serve, "status", lambda: types.SimpleNamespace(applications=dict.fromkeys(applications)))
    monkeypatch.setattr(ray_serve, "_listen", lambda settings: pytest.fail("Serve was started"))
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, out, err = cli("serve", small_onnx, "--port", port, "--ray", "auto")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert sentence.format(port=port) in err


def test_ray_cuts_no_body_that_the_service_takes(monkeypatch, tmp_path):
    from ray import serve

    started = []
    monkeypatch.setattr(serve, "start", lambda **options: started.append(options["http_options"]))
    ray_serve._listen(Settings(tmp_path / "a.onnx", "a", limits=Limits(body=16 << 20, seconds=30)))
    assert started[0]["request_timeout_s"] == 1024 + 2 * 30  # 16 MiB at 16 KiB a second, a stall, the answer
