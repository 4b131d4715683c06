"""Memory that runs out has one error, whichever runtime says so, and the runs after it are right."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fake_engines import FakeEngine
from graphs import value, write_graph
from onnx import helper

from evodeploy.engines.opener import open_engine
from evodeploy.engines.torch_engine import TorchEngine
from evodeploy.errors import EvodeployError, OutOfMemoryError, RuntimeFailedError
from evodeploy.specs import EngineOptions, ModelInfo, TensorSpec

INFO = ModelInfo("fake", image_size=8, patch_size=4, num_classes=3, selection="stage", keep_ratios=(0.5,))
IMAGES = np.random.default_rng(0).standard_normal((5, 3, 8, 8), dtype=np.float32)


class Hungry(torch.nn.Module):
    """Takes petabytes for a batch of 5."""

    def forward(self, images):
        return (images.mean(dim=(1, 2, 3))[:, None] + torch.zeros(10 ** (3 * len(images)))[:1],)


@pytest.fixture(scope="module")
def hungry_onnx(tmp_path_factory):
    """The mean of each image times 10^batch, by way of a tensor with batch x 10^(3 batch) elements."""
    node = helper.make_node
    nodes = [
        node("Shape", ["images"], ["batch"], start=0, end=1),
        node("Pow", ["ten", "batch"], ["side"]),
        node("Concat", ["batch", "side", "side", "side"], ["shape"], axis=0),
        node("ReduceMean", ["images", "axes"], ["mean"], keepdims=1),
        node("Expand", ["mean", "shape"], ["large"]),
        node("CumSum", ["large", "axis"], ["sums"]),
        node("ReduceMax", ["sums", "axes"], ["greatest"], keepdims=0),
        node("Unsqueeze", ["greatest", "axis"], ["logits"]),
    ]
    constants = {"ten": np.int64([10]), "axes": np.int64([1, 2, 3]), "axis": np.int64([1])}
    images, logits = value("images", ["batch", 3, 8, 8]), value("logits", ["batch", 1])
    return write_graph(tmp_path_factory.mktemp("hungry") / "hungry.onnx", nodes, [images], [logits], constants)


def opened(runtime, threads, hungry_onnx):
    options = EngineOptions(threads=threads, device="cpu")
    if runtime == "torch":
        spec = TensorSpec("images", "float32", (None, 3, 8, 8))
        return TorchEngine(Hungry(), (spec,), (TensorSpec("logits", "float32", (None, 1)),), options=options)
    return open_engine(hungry_onnx, runtime, options)


@pytest.mark.parametrize(("runtime", "threads"), [("torch", 1), ("onnxruntime", 1), ("openvino", 1), ("openvino", 2)])
def test_a_runtime_that_runs_out_of_memory_keeps_working(runtime, threads, hungry_onnx):
    """OpenVINO fails afterwards or returns earlier outputs, and with one thread it does not say that memory ran out."""
    with opened(runtime, threads, hungry_onnx) as engine:
        before = engine.run(IMAGES[:2])["logits"]
        for _ in range(3):
            with pytest.raises(
                OutOfMemoryError, match=f"{runtime} runs out of memory at batch 5.*: use a smaller batch"
            ):
                engine.run(IMAGES)
            np.testing.assert_array_equal(engine.run(IMAGES[:2])["logits"], before)


class Silent:
    """An infer request that computes nothing and does not say so."""

    def __init__(self, request):
        self.output_tensors = request.output_tensors

    def infer(self, inputs, share_inputs):
        pass


@pytest.mark.parametrize(
    ("kind", "batch", "side"),
    [("float32", "b", 2), ("int64", "b", 2), ("bool", "b", 2), ("bool", "b", 1), ("float32", 2, 2), ("bool", 2, 2)],
)
def test_openvino_never_returns_what_an_earlier_run_computed(tmp_path, kind, batch, side):
    to = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    cast = helper.make_node("Cast", ["images"], ["y"], to=to)
    given, gives = value("images", ["b", 3, side, side]), value("y", [batch, 3, side, side], to)
    path = write_graph(tmp_path / "x.onnx", [cast], [given], [gives])
    images = np.ones((2, 3, side, side), np.float32)
    with open_engine(path, "openvino") as engine:
        for factor in (1, 0, 7):
            np.testing.assert_array_equal(engine.run(images * factor)["y"], (images * factor).astype(kind))
        engine._requests.idle = [Silent(engine._requests.idle[0])]
        with pytest.raises(OutOfMemoryError, match="openvino runs out of memory at batch 2: use a smaller batch"):
            engine.run(images)
        np.testing.assert_array_equal(engine.run(images)["y"], images.astype(kind))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA: 2 GiB wanted"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("Exception from src/inference/src/cpp/infer_request.cpp:224:\nstd::bad_alloc"),
        RuntimeError("CUDNN failure 2: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("Error Code 2: OutOfMemory (Requested size was 8 bytes.)"),
    ],
    ids=lambda error: f"{type(error).__name__} {str(error)[-24:]}",
)
def test_errors_that_mean_out_of_memory(error):
    raised = translated(error)
    assert type(raised) is OutOfMemoryError
    assert raised.__cause__ is error
    assert "\n" not in str(raised)


def test_other_errors_do_not():
    raised = translated(RuntimeError("Exception from a.cpp:1:\nCheck 'memory_desc' failed"))
    assert type(raised) is RuntimeFailedError
    assert str(raised) == "fake failed at batch 5: Check 'memory_desc' failed"


def translated(error):
    """What an engine raises whose runtime raises `error`."""

    def fails(images):
        raise error

    with FakeEngine(INFO, compute=fails) as engine, pytest.raises(EvodeployError) as raised:
        engine.run(IMAGES)
    return raised.value
