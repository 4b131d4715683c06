"""What needs an NVIDIA GPU: `make test-gpu`. Builds, runs, verifies and benches with every TensorRT installed."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from evodeploy.build import BuildRequest, build
from evodeploy.engines.base import run_all
from evodeploy.engines.registry import open_engine
from evodeploy.engines.tensorrt.driver import architecture, driver_problem
from evodeploy.engines.tensorrt.flavour import load_flavour
from evodeploy.errors import InputError, MissingExtraError, UsageError
from evodeploy.specs import EngineOptions
from evodeploy.verification import compare_artefacts

pytestmark = pytest.mark.gpu
SAMPLE = Path(__file__).parents[2] / "sample"
LARGEST = 16


@pytest.fixture(scope="module", autouse=True)
def driver():
    assert driver_problem() is None


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    from evodeploy.export.run import ExportRequest, export_checkpoint

    folder = tmp_path_factory.mktemp("gpu")
    checkpoint = Path(shutil.copy(SAMPLE / "digits.pth", folder))
    onnx = folder / "digits.onnx"
    export_checkpoint(ExportRequest(checkpoint, onnx, tokens=True), tell=lambda text: None)
    return checkpoint, onnx


@pytest.fixture(scope="module", params=["tensorrt", "tensorrt-rtx"])
def runtime(request):
    try:
        load_flavour(request.param)
    except MissingExtraError as error:
        pytest.skip(str(error))
    return request.param


@pytest.fixture(scope="module", params=["fp16", "fp32"])
def plan(request, exported, runtime):
    path = exported[1].with_name(f"{runtime}-{request.param}.engine")
    precision = None if request.param == "fp32" else request.param
    targets = (architecture(),) if runtime == "tensorrt-rtx" else ()
    build(BuildRequest(exported[1], path, precision, ((1, 8, LARGEST),), runtime, targets), tell=lambda text: None)
    return path


def images(count: int) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, 3, 64, 64), dtype=np.float32)


def test_an_engine_keeps_the_tokens_that_pytorch_keeps(exported, plan, found):
    verdict = compare_artefacts(exported[0], plan, count=64, tell=lambda text: None)
    found |= {
        "largest_error": verdict.logits.max_error, "median_cosine": verdict.logits.median_cosine,
        "top1": verdict.logits.top1, "agreement": [each.agreement for each in verdict.selections],
        "errors": [each.errors for each in verdict.selections],
    }  # fmt: skip
    assert verdict.passed


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


def test_beside_torch_in_one_process(plan):
    import torch

    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    before = torch.ones(1024, device="cuda")
    with open_engine(plan) as engine:
        engine.run(images(4))
        assert float((before * 2).sum()) == 2048
    assert float((before * 3).sum()) == 3072


def test_recorded_graphs_compute_the_same(plan):
    with open_engine(plan) as plain, open_engine(plan, options=EngineOptions(cuda_graph=True)) as recorded:
        for n in (1, 8, 1, 3, 8):
            np.testing.assert_allclose(recorded.run(images(n))["logits"], plain.run(images(n))["logits"], atol=1e-3)


@pytest.mark.parametrize("graph", [False, True])
def test_time_on_the_device(plan, found, graph):
    with open_engine(plan, options=EngineOptions(cuda_graph=graph)) as engine:
        for n in (1, 8, LARGEST):
            resident = engine.resident(images(n))
            samples = sorted(resident.time() for _ in range(200))
            found[f"median_ms_batch_{n}"] = samples[100] * 1e3
            np.testing.assert_allclose(resident.outputs()["logits"], engine.run(images(n))["logits"], atol=1e-3)
            resident.close()


def test_the_bench_runs_to_its_end(exported, plan, found, cli):
    code, out, err = cli("bench", exported[0], exported[1], plan, "--batch", "1,16", "--seconds", "1", "--json")
    assert code == 0, err
    found["bench"] = json.loads(out)


@pytest.mark.parametrize("name", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_onnxruntime_on_the_gpu(exported, name):
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has no CUDA: pip install onnxruntime-gpu in place of onnxruntime")
    with open_engine(exported[1], name) as gpu, open_engine(exported[1], "onnxruntime") as cpu:
        np.testing.assert_allclose(gpu.run(images(4))["logits"], cpu.run(images(4))["logits"], atol=2e-2)
