"""ONNX Runtime's GPU providers: how they get our options, and that they are refused where they are not."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from graphs import restated

from evodeploy.engines.device import cuda_index
from evodeploy.engines.onnxruntime_binding import BoundBatch
from evodeploy.engines.onnxruntime_engine import OnnxRuntimeEngine, _profile_of
from evodeploy.engines.onnxruntime_providers import ON_CPU, ON_CUDA, ON_TENSORRT
from evodeploy.engines.opener import open_engine
from evodeploy.errors import BadFileError, UnavailableError, UsageError
from evodeploy.graph.precision import reduced_from_onnx
from evodeploy.onnx_files import read_onnx, write_onnx
from evodeploy.specs import EngineOptions


def on_cpu(provider):
    """The provider as it is asked for, computed by the one for CPUs."""
    return dataclasses.replace(provider, chain=ON_CPU.chain, options=ON_CPU.options)


@pytest.fixture
def tensorrt_here(monkeypatch):
    monkeypatch.setattr(ort, "preload_dlls", lambda: None)
    monkeypatch.setattr(ort, "get_available_providers", lambda: list(ON_TENSORRT.chain))


@pytest.fixture
def first_choices(monkeypatch):
    """The first provider of each session, with its options; sessions compute on the CPU."""
    asked, real = [], ort.InferenceSession

    def session(path, options, providers):
        asked.append(providers[0])
        return real(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(ort, "InferenceSession", session)
    return asked


def test_options_reach_the_provider_under_its_own_names():
    assert ON_CPU.options(EngineOptions(threads=2)) == {}
    assert ON_CUDA.options(EngineOptions(device="cuda:1", cuda_graph=True)) == {
        "device_id": "1", "use_tf32": "1", "enable_cuda_graph": "1",
    }  # fmt: skip
    assert ON_CUDA.options(EngineOptions(tf32=False)) == {"device_id": "0", "use_tf32": "0"}
    chosen = ON_TENSORRT.options(EngineOptions(precision="fp16", cache=Path("kept")))
    assert chosen["trt_fp16_enable"] == chosen["trt_engine_cache_enable"] == "1"
    assert chosen["trt_engine_cache_path"] == "kept"
    with pytest.raises(UsageError, match="fp32 or fp16, got precision bf16"):
        ON_TENSORRT.options(EngineOptions(precision="bf16"))


@pytest.mark.parametrize("name", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_a_provider_that_the_build_lacks_is_refused(small_onnx, name):
    with pytest.raises(UnavailableError, match=r"evodeploy\[gpu\]"):
        open_engine(small_onnx, name)


@pytest.mark.parametrize(
    ("provider", "asked", "tf32"),
    [(ON_CPU, None, False), (ON_CUDA, None, True), (ON_CUDA, False, False), (ON_TENSORRT, None, True)],
)
def test_an_engine_knows_whether_its_products_may_be_tf32(small_onnx, provider, asked, tf32):
    with OnnxRuntimeEngine(small_onnx, EngineOptions(tf32=asked), on_cpu(provider)) as engine:
        assert engine.tf32 is tf32


def test_no_option_is_ignored_though_it_says_no(small_onnx):
    for name in ("onnxruntime", "onnxruntime-tensorrt"):
        with pytest.raises(UsageError, match=rf"'{name}' has no option tf32 \(got False\)"):
            open_engine(small_onnx, name, EngineOptions(tf32=False))


def test_names_of_devices():
    assert [cuda_index(name) for name in ("cpu", None, "cuda", "cuda:3")] == [None, 0, 0, 3]
    with pytest.raises(UsageError, match="device is 3, expected cpu, cuda or cuda:N"):
        EngineOptions(device=3)
    with pytest.raises(UsageError, match="no device is called 'gpu'"):
        cuda_index("gpu")


class OneGraph(ort.InferenceSession):
    """Replays what it ran first, whatever it is asked to run, as a session with the TensorRT provider does."""

    recorded = None

    def run_with_iobinding(self, binding, run_options=None):
        self.recorded = self.recorded or binding
        super().run_with_iobinding(self.recorded, run_options)


@pytest.mark.parametrize("sessions", [8, 2])
def test_a_provider_with_one_graph_gets_a_session_for_each_batch_size(small_onnx, monkeypatch, sessions):
    monkeypatch.setattr("evodeploy.engines.onnxruntime_engine.SESSIONS", sessions)
    rng = np.random.default_rng(0)
    batches = [rng.standard_normal((n, 3, 64, 64), dtype=np.float32) for n in (2, 1, 3, 2, 1)]
    with open_engine(small_onnx, "onnxruntime") as engine:
        expected = [engine.run(images) for images in batches]
    monkeypatch.setattr(ort, "InferenceSession", OneGraph)
    assert ON_TENSORRT.one_graph
    assert not ON_CUDA.one_graph  # it keeps a graph for each gpu_graph_id
    with OnnxRuntimeEngine(small_onnx, EngineOptions(cuda_graph=True), on_cpu(ON_TENSORRT)) as engine:
        for images, outputs in zip(batches, expected, strict=True):
            got = engine.run(images)
            for name, value in outputs.items():
                np.testing.assert_array_equal(got[name], value)
        assert list(engine._bound) == [3, 2, 1][-sessions:]


def test_what_tensorrt_leaves_is_run_by_the_same_gpu(small_onnx, tensorrt_here, monkeypatch):
    asked = []

    def session(path, options, providers):
        asked.extend(providers)
        raise RuntimeError("no GPU")

    monkeypatch.setattr(ort, "InferenceSession", session)
    with pytest.raises(BadFileError, match="no GPU"):
        open_engine(small_onnx, "onnxruntime-tensorrt", EngineOptions(device="cuda:1"))
    assert asked == [
        ("TensorrtExecutionProvider", {"device_id": "1"}),
        ("CUDAExecutionProvider", {"device_id": "1"}),
        "CPUExecutionProvider",
    ]


def test_tensorrt_s_provider_knows_the_range_of_an_elastic_file(
    small_elastic, small_onnx, tensorrt_here, first_choices, monkeypatch
):
    for path, keys in ((small_elastic, 3), (small_onnx, 0)):
        with pytest.raises(UnavailableError, match="does not start here"):
            open_engine(path, "onnxruntime-tensorrt")
        (name, options) = first_choices[-1]
        assert (name, sum(key.startswith("trt_profile") for key in options)) == ("TensorrtExecutionProvider", keys)
    assert first_choices[0][1] == {
        "device_id": "0",
        "trt_profile_min_shapes": "images:1x3x64x64,keep:6x6",
        "trt_profile_opt_shapes": "images:32x3x64x64,keep:64x64",
        "trt_profile_max_shapes": "images:128x3x64x64,keep:64x64",
    }
    monkeypatch.setattr(ort, "get_available_providers", lambda: list(ON_CPU.chain))
    with OnnxRuntimeEngine(small_elastic, provider=on_cpu(ON_TENSORRT)) as engine:
        assert (engine.batch.min, engine.batch.max) == (1, 128)


def test_an_elastic_file_in_bf16_is_read_for_its_range_though_a_cpu_cannot_run_it(small_elastic, tmp_path):
    path = tmp_path / "bf16.onnx"
    write_onnx(reduced_from_onnx(read_onnx(small_elastic), "bf16").model, path)
    with pytest.raises(BadFileError, match="NOT_IMPLEMENTED"):
        open_engine(path, "onnxruntime")
    assert _profile_of(path) == _profile_of(small_elastic) != {}
    path.write_bytes(b"damaged")
    with pytest.raises(BadFileError, match=r"ONNX Runtime .* cannot load .*bf16\.onnx"):
        _profile_of(path)


def test_engines_that_tensorrt_s_provider_keeps_are_of_one_export(small_onnx, tensorrt_here, first_choices, tmp_path):
    """It names them by the file's name and its nodes': an export of other weights by that name would get them."""
    path = tmp_path / "model.onnx"
    for source in ("first.pth", "second.pth"):
        restated(small_onnx, path, source=source)
        with pytest.raises(UnavailableError, match="does not start here"):
            open_engine(path, "onnxruntime-tensorrt", EngineOptions(cache=tmp_path / "kept"))
    prefixes = [options["trt_engine_cache_prefix"] for _, options in first_choices]
    assert len({*prefixes}) == 2


@pytest.mark.parametrize(("provider", "preloads"), [(ON_CPU, 0), (ON_CUDA, 1), (ON_TENSORRT, 1)])
def test_cuda_libraries_of_pip_are_loaded_before_a_session(small_onnx, monkeypatch, capsys, provider, preloads):
    loaded = []

    def preload():
        print("Failed to load libcudnn.so.9")
        loaded.append(1)

    monkeypatch.setattr(ort, "preload_dlls", preload)
    monkeypatch.setattr(ort, "get_available_providers", lambda: list(provider.chain))
    with contextlib.suppress(UnavailableError, BadFileError):  # here is no GPU
        OnnxRuntimeEngine(small_onnx, provider=provider).close()
    assert len(loaded) == preloads
    assert capsys.readouterr().out == ""


def test_bound_tensors_give_what_a_plain_run_gives(small_onnx):
    with open_engine(small_onnx, "onnxruntime") as engine:
        images = np.random.default_rng(0).standard_normal((2, 3, 64, 64), dtype=np.float32)
        expected = engine.run(images)
        session = ort.InferenceSession(str(small_onnx), providers=["CPUExecutionProvider"])
        bound = BoundBatch(session, engine.inputs, engine.outputs, 2, "cpu", 0)
        first = bound.run(images)
        bound.run(np.zeros_like(images))
    for name, value in expected.items():
        np.testing.assert_array_equal(first[name], value)


def test_fp8_that_onnx_runtime_fuses_into_integers_is_opened_without_that(small_onnx, monkeypatch):
    real = ort.InferenceSession

    def before_1_32(path, options, **more):
        try:
            options.get_session_config_entry("session.disable_quant_qdq")
        except RuntimeError:
            raise RuntimeError("Type 'tensor(float8e4m3fn)' of input parameter (x) of operator is invalid") from None
        return real(path, options, **more)

    monkeypatch.setattr(ort, "InferenceSession", before_1_32)
    with open_engine(small_onnx, "onnxruntime") as engine:
        assert engine.run(np.zeros((1, 3, 64, 64), np.float32))["logits"].shape == (1, 10)
