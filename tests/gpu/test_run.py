"""Part 2: engines run, in threads, as graphs, next to PyTorch, and timed on the device."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from evodeploy.engines.base import run_all
from evodeploy.engines.opener import open_engine
from evodeploy.errors import InputError, UsageError
from evodeploy.specs import EngineOptions

pytestmark = pytest.mark.gpu
LARGEST = 16  # of the plans in conftest.py


def images(count: int) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, 3, 64, 64), dtype=np.float32)


def test_every_batch_size_in_turn_and_threads_at_once(plan):
    with open_engine(plan) as engine:
        expected = {n: engine.run(images(n))["logits"] for n in range(1, LARGEST + 1)}
        with ThreadPoolExecutor(4) as pool:
            for n, got in zip([*expected] * 4, pool.map(lambda n: engine.run(images(n)), [*expected] * 4), strict=True):
                np.testing.assert_allclose(got["logits"], expected[n], atol=1e-3)
        many = np.concatenate([images(n) for n in (1, 5, 16, 9, 2)])
        np.testing.assert_allclose(run_all(engine, many, 8)["logits"][:1], expected[1], atol=2e-2)
        with pytest.raises(InputError):
            engine.run(images(LARGEST + 1))
    with pytest.raises(UsageError, match="closed"):
        engine.run(images(1))


def test_next_to_torch_in_one_process(plan):
    torch = torch_on_cuda()
    before = torch.ones(1024, device="cuda")
    with open_engine(plan) as engine:
        engine.run(images(4))
        assert float((before * 2).sum()) == 2048
    assert float((before * 3).sum()) == 3072


def test_graphs_are_recorded_while_torch_works_in_another_thread(plan):
    torch = torch_on_cuda()
    values, stop = torch.ones(1 << 20, device="cuda"), threading.Event()

    def work() -> float:
        total = torch.zeros((), device="cuda")
        while not stop.is_set():
            total = total + (values * 2).sum()
            values.cpu()
        return float(total)

    with open_engine(plan) as plain, ThreadPoolExecutor(1) as pool:
        expected = {n: plain.run(images(n))["logits"] for n in range(1, LARGEST + 1)}
        torch_work = pool.submit(work)
        try:
            with open_engine(plan, options=EngineOptions(cuda_graph=True)) as engine:
                for n, value in expected.items():
                    np.testing.assert_allclose(engine.run(images(n))["logits"], value, atol=1e-3)
        finally:
            stop.set()
        assert torch_work.result() > 0


def test_recorded_graphs_compute_the_same(plan):
    with open_engine(plan) as plain, open_engine(plan, options=EngineOptions(cuda_graph=True)) as recorded:
        for n in (1, 8, 1, 3, 8):
            np.testing.assert_allclose(recorded.run(images(n))["logits"], plain.run(images(n))["logits"], atol=1e-3)


@pytest.mark.parametrize("graph", [False, True])
def test_each_run_keeps_as_many_tokens_as_it_says(elastic, graph):
    onnx, plan = elastic
    with (
        open_engine(onnx, "onnxruntime") as reference,
        open_engine(plan, options=EngineOptions(cuda_graph=graph)) as engine,
    ):
        for ratio in (0.2, 1.0, 0.5, 0.2):
            keep = engine.info.keep_of(ratio)
            expected = reference.run(images(8), keep)["logits"]
            np.testing.assert_allclose(engine.run(images(8), keep)["logits"], expected, atol=1e-3)
        with pytest.raises(InputError, match="cannot keep 0"):
            engine.run(images(8), (0,) * len(keep))


@pytest.mark.parametrize("graph", [False, True])
def test_time_on_the_device(plan, found, graph):
    with open_engine(plan, options=EngineOptions(cuda_graph=graph)) as engine:
        for n in (1, 8, LARGEST):
            resident = engine.resident(images(n))
            samples = sorted(resident.time() for _ in range(200))
            found[f"median_ms_batch_{n}"] = samples[100] * 1e3
            np.testing.assert_allclose(resident.outputs()["logits"], engine.run(images(n))["logits"], atol=1e-3)
            resident.close()


def test_a_process_that_closes_nothing_ends_cleanly(plan):
    program = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from evodeploy.engines.opener import open_engine\n"
        "engine = open_engine(Path(sys.argv[1]))\n"
        "engine.run(np.zeros((2, 3, 64, 64), np.float32))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(plan)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def torch_on_cuda():
    import torch

    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    return torch
