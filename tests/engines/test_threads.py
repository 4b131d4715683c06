"""Threads share an engine: every runtime that exists here, held to one contract.

A plan's is in tests/engines/tensorrt/test_runner.py, the case `shared`.
"""

from __future__ import annotations

import functools
import threading

import numpy as np
import pytest
import torch
from fake_engines import FakeEngine
from sharing import check_close, check_residents, check_runs, check_streams, in_threads

from evodeploy.engines.onnxruntime_engine import OnnxRuntimeEngine
from evodeploy.engines.opener import open_engine
from evodeploy.engines.torch_engine import TorchEngine
from evodeploy.engines.torch_network import torch_engine as deployed_engine
from evodeploy.errors import UsageError
from evodeploy.models.random_weights import random_model
from evodeploy.models.zoo import EvoDeiTConfig
from evodeploy.specs import EngineOptions, ModelInfo, TensorSpec

INFO = ModelInfo("fake", image_size=8, patch_size=4, num_classes=3, selection="stage", keep_ratios=(0.5,))
SMALLEST = EvoDeiTConfig(
    "smallest", width=16, heads=2, depth=3, image_size=32, patch_size=8, mlp_ratio=1.0, num_classes=3, stages=(1, 2)
)
IMAGES = np.zeros((2, 3, 8, 8), np.float32)


class Tiny(torch.nn.Module):
    """Small enough to compile for many batch sizes."""

    inputs = (TensorSpec("images", "float32", (None, 3, 8, 8)),)
    outputs = (TensorSpec("logits", "float32", (None, 5)),)

    def __init__(self):
        super().__init__()
        self.patches, self.head = torch.nn.Conv2d(3, 4, 4, 4), torch.nn.Linear(16, 5)

    def forward(self, images):
        return (self.head(self.patches(images).flatten(1)),)


@pytest.fixture
def by_dynamo(monkeypatch):
    """torch.compile without its compiler of kernels, which takes seconds for each batch size."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))


def compiled(options=None):
    return TorchEngine(Tiny(), Tiny.inputs, Tiny.outputs, name="torch-compile", options=options)


def torch_engine(precision):
    return deployed_engine(random_model(SMALLEST), options=EngineOptions(threads=1, precision=precision, device="cpu"))


OPENED = {
    "fake": lambda request: FakeEngine(INFO, device_seconds=0.01),
    "torch": lambda request: torch_engine("fp32"),
    "torch-bf16": lambda request: torch_engine("bf16"),
    "torch-compile": lambda request: request.getfixturevalue("by_dynamo") or compiled(),
    "onnxruntime": lambda request: open_engine(
        request.getfixturevalue("small_onnx"), "onnxruntime", EngineOptions(threads=1)
    ),
    "onnxruntime-bound": lambda request: OnnxRuntimeEngine(
        request.getfixturevalue("small_onnx"), EngineOptions(threads=1, cuda_graph=True)
    ),
    "openvino": lambda request: open_engine(
        request.getfixturevalue("small_onnx"), "openvino", EngineOptions(threads=1)
    ),
}


@pytest.fixture(params=OPENED)
def engine(request):
    with OPENED[request.param](request) as engine:
        yield engine


def test_threads_get_what_one_thread_gets(engine):
    check_runs(engine)


def test_streams_of_several_threads_and_a_close_meanwhile(engine):
    check_streams(engine)
    check_close(engine)


def test_batches_on_a_device_belong_to_their_threads():
    with FakeEngine(INFO, device_seconds=0.01) as engine:
        check_residents(engine)


def test_close_waits_for_the_runs_in_progress_and_refuses_new_ones():
    running, go_on = threading.Event(), threading.Event()
    released = []

    class Slow(FakeEngine):
        def _close(self):
            released.append(go_on.is_set())

    def compute(images):
        running.set()
        assert go_on.wait(60)
        return {"logits": np.ones((len(images), 3), np.float32)}

    engine = Slow(INFO, compute=compute)

    def work(number):
        if number == 0:
            assert engine.run(IMAGES)["logits"].shape == (2, 3)
        elif number == 1:
            assert running.wait(60)
            engine.close()
        else:
            assert running.wait(60)
            while True:
                try:
                    engine.run(IMAGES[:0])  # fits no engine: refused as closed, or as no batch
                except UsageError as error:
                    if "closed" in str(error):
                        break
            assert not released
            go_on.set()

    in_threads(work, 3)
    assert released == [True]
    engine.close()
    assert released == [True]


def test_an_interrupted_close_is_finished_by_the_next(monkeypatch):
    closed = []

    class Closing(FakeEngine):
        def _close(self):
            closed.append(True)

    engine = Closing(INFO)
    condition = engine._usage._changed
    monkeypatch.setattr(condition, "wait_for", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        engine.close()
    monkeypatch.undo()
    assert closed == []
    with pytest.raises(UsageError, match="the fake engine is closed"):
        engine.run(IMAGES)
    engine.close()
    assert closed == [True]


def test_compiled_pytorch_never_falls_back_to_eager(by_dynamo):
    """PyTorch stops after eight compilations of one code object, and computes eagerly without a word."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    images = np.random.default_rng(0).standard_normal((11, 3, 8, 8), dtype=np.float32)
    with compiled() as engine:
        for size in range(1, 12):
            engine.run(images[:size])
        engine.run(images[:3])
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 11
    assert not torch._dynamo.utils.counters["graph_break"]


@pytest.mark.slow
def test_threads_share_kernels_of_the_real_compiler():
    with compiled(EngineOptions(threads=1)) as engine:
        check_runs(engine)
        check_close(engine)
