"""The options of the runtime: every command hands them on, and a runtime refuses those that it cannot honour."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from PIL import Image

from evodeploy.engines.onnxruntime_engine import OnnxRuntimeEngine
from evodeploy.engines.opener import RUNTIMES
from evodeploy.specs import EngineOptions

COMMANDS = {
    "predict": ("predict", "a.onnx", "images"),
    "eval": ("eval", "a.onnx", "--data", "images", "--labels", "labels.csv"),
    "verify": ("verify", "a.onnx", "a.onnx", "--random", "1"),
    "visualize": ("visualize", "a.onnx", "images", "-o", "drawn"),
    "margins": ("margins", "a.onnx", "--images", "images"),
    "serve": ("serve", "a.onnx", "--port", "0"),
}
ON_RAY = {"batch": ("batch", "a.onnx", "images", "--output", "out"), "serve": (*COMMANDS["serve"], "--replicas", "2")}
ASKED = {
    "device": ("--device", "cuda:1"),
    "precision": ("--precision", "bf16"),
    "cuda_graph": ("--cuda-graph",),
    "threads": ("--threads", "1"),
    "cache": ("--cache", "kept"),
    "tf32": ("--no-tf32",),
    "fixed_keep": ("--fixed-keep", "0.7,0.5"),
}
WANTED = EngineOptions(1, "cuda:1", "bf16", cuda_graph=True, cache=Path("kept"), tf32=False, fixed_keep=(0.7, 0.5))


@pytest.fixture
def here(tmp_path, monkeypatch, small_onnx):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (64, 64), (90, 20, 200)).save(tmp_path / "images" / "a.png")
    (tmp_path / "labels.csv").write_text("path,label\na.png,3\n")
    (tmp_path / "a.onnx").write_bytes(small_onnx.read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("evodeploy.serving.service.until_stopped", lambda announce: announce())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_reaches_the_runtime(cli, here, monkeypatch, command):
    opened = []

    def recording(wanted):
        opened.append(wanted.options)
        return OnnxRuntimeEngine(wanted.path, EngineOptions(threads=1))

    honours = frozenset(field.name for field in dataclasses.fields(EngineOptions))
    runtime = dataclasses.replace(RUNTIMES["onnxruntime-cuda"], open=recording, honours=honours)
    monkeypatch.setitem(RUNTIMES, "onnxruntime-cuda", runtime)
    options = [word for words in ASKED.values() for word in words]
    code, _, err = cli(*COMMANDS[command], "--engine", "onnxruntime-cuda", *options)
    assert code == 0, err
    assert [dataclasses.replace(each, cache=Path(each.cache.name)) for each in opened] == [WANTED]


@pytest.mark.parametrize("command", ON_RAY)
def test_an_option_that_the_runtime_cannot_honour_is_refused_before_ray_starts(cli, here, monkeypatch, command):
    monkeypatch.setattr("evodeploy.cluster._start", lambda *_: pytest.fail("Ray was started"))
    code, out, err = cli(*ON_RAY[command], "--engine", "onnxruntime", "--no-tf32")
    assert (code, out) == (2, "")
    assert "the engine 'onnxruntime' has no option tf32" in err


@pytest.mark.parametrize("option", ["precision", "cuda_graph", "cache", "tf32"])
@pytest.mark.parametrize("command", COMMANDS)
def test_an_option_that_the_runtime_cannot_honour_is_refused(cli, here, command, option):
    code, out, err = cli(*COMMANDS[command], "--engine", "onnxruntime", *ASKED[option])
    assert (code, out) == (2, "")
    assert f"the engine 'onnxruntime' has no option {option}" in err


def test_a_cache_may_be_named_by_a_string():
    assert EngineOptions(cache="kept") == EngineOptions(cache=Path("kept"))


def test_a_precision_that_does_not_exist_is_refused(cli, here):
    code, _, err = cli(*COMMANDS["predict"], "--precision", "fp64")
    assert code == 2
    assert "precision is 'fp64', expected one of fp32, fp16, bf16" in err
