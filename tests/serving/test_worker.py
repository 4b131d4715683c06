"""A worker on an elastic engine: which keep ratio each request is run at, and what its answer says of it."""

from __future__ import annotations

import asyncio
import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from fake_engines import FakeEngine, brightness_logits
from fastapi.testclient import TestClient
from PIL import Image

from evodeploy.elastic import ElasticStage
from evodeploy.errors import InputError, RuntimeFailedError
from evodeploy.serving import budget as plan
from evodeploy.serving.app import create_app
from evodeploy.serving.backend import Asked
from evodeploy.serving.budget import Budget
from evodeploy.serving.metrics import Metrics
from evodeploy.serving.settings import Limits, Settings
from evodeploy.serving.tensors import metadata_of
from evodeploy.serving.worker import Worker, named
from evodeploy.specs import BatchRange, ModelInfo

STAGES = (ElasticStage(64, 12, 64), ElasticStage(64, 12, 64))
INFO = ModelInfo("small", 64, 8, 10, "stage", (0.5, 0.5), elastic=STAGES)
STATIC = ModelInfo("small", 64, 8, 10, "stage", (0.5, 0.5))
IMAGES = np.zeros((2, 3, 64, 64), np.float32)
BUDGET = Budget(10.0, 0.25)


@pytest.fixture
def engine():
    return FakeEngine(INFO)


@pytest.fixture
def start(engine):
    """A function that makes a worker, with a budget unless it is None; its warm-up is not counted."""
    workers = []

    def made(budget=BUDGET, ran=lambda *_: None, max_wait=0.05):
        settings = Settings(Path("a.onnx"), max_batch=8, max_wait=max_wait, budget=budget)
        workers.append(Worker(engine, named(settings, engine), ran))
        engine.keeps.clear()
        return workers[-1]

    yield made
    for worker in workers:
        worker.close()


def together(worker, *asked):
    async def run():
        return await asyncio.gather(*(worker.run(IMAGES, each) for each in asked))

    return asyncio.run(run())


@pytest.mark.parametrize("budget", [None, BUDGET])
def test_a_worker_warms_up_each_batch_that_its_engine_takes(budget):
    ran = []

    def compute(images):
        ran.append(len(images))
        return {"logits": np.zeros((len(images), 10), np.float32)}

    gaps = (BatchRange(1, 1), BatchRange(4, 4), BatchRange(6, 32))
    engine = FakeEngine(INFO, BatchRange(1, 32), compute, device_seconds=1e-3, ranges=gaps)
    settings = Settings(Path("a.onnx"), max_batch=5, max_wait=0.05, budget=budget)
    worker = Worker(engine, named(settings, engine), lambda *_: None)
    assert set(ran) == {1, 4, 6}
    ran.clear()
    (answer,) = together(worker, Asked())
    assert (ran, len(answer.outputs["logits"])) == ([4], len(IMAGES))
    worker.close()


@pytest.mark.parametrize(
    ("name", "device_seconds", "expected"),
    [
        ("fake", None, [1, 2, 4, 6]),
        ("fake", 0.001, [1, 2, 3, 4, 5, 6]),  # on a GPU
        ("torch-compile", None, [1, 2, 3, 4, 5, 6]),
    ],
)
def test_batches_are_run_before_requests_are_taken(logged, name, device_seconds, expected):
    sizes = []

    def compute(images):
        sizes.append(len(images))
        return {"logits": brightness_logits(images, 10)}

    engine = FakeEngine(INFO, compute=compute, device_seconds=device_seconds)
    engine.name = name
    Worker(engine, Settings(Path("a.onnx"), max_batch=6), lambda *_: None).close()
    assert sizes == expected
    assert list(logged) == ["running batches of up to 6 images once, before requests are taken"]


def test_without_a_budget_requests_get_the_artefacts_ratio_unless_they_ask_for_another(start, engine):
    runs = []
    worker = start(None, lambda images, seconds, ratios: runs.append((images, ratios)))
    answers = together(
        worker, Asked(), Asked(keep_ratio=0.25), Asked(least_keep_ratio=0.4), Asked(least_keep_ratio=0.75)
    )
    assert [answer.keep_ratios for answer in answers] == [(0.5, 0.5), (0.25, 0.25), (0.5, 0.5), (0.75, 0.75)]
    assert engine.keeps == [(32, 32), (16, 16), (48, 48)]  # the first and the third are one run
    assert runs == [(4, (0.5, 0.5)), (2, (0.25, 0.25)), (2, (0.75, 0.75))]


def test_with_a_budget_an_idle_worker_keeps_all(start, engine):
    worker = start()
    (answer,) = together(worker, Asked())
    assert answer.keep_ratios == (1.0, 1.0)
    assert answer.shown == "1"
    assert engine.keeps == [(64, 64)]
    target = metadata_of(worker, "small")["parameters"]["target"]
    assert target == {"milliseconds": BUDGET.target * 1000, "keep_ratios": [BUDGET.low, BUDGET.high]}


def test_a_busy_worker_keeps_fewer_but_no_fewer_than_asked(start, engine, monkeypatch):
    worker = start()
    monkeypatch.setattr(plan, "possible", lambda *_: 0)
    answers = together(worker, Asked(), Asked(least_keep_ratio=0.6), Asked(keep_ratio=1.0), Asked(least_keep_ratio=0.2))
    assert [answer.keep_ratios[0] for answer in answers] == [0.25, 0.625, 1.0, 0.25]
    assert engine.keeps == [(16, 16), (40, 40), (64, 64)]


def test_batches_are_no_larger_than_the_target_allows_now(start, monkeypatch):
    runs = []
    worker = start(ran=lambda images, *_: runs.append(images))
    monkeypatch.setattr(plan, "largest_batch", lambda *_: 1)
    together(worker, Asked())
    together(worker, Asked(), Asked(), Asked())
    assert runs == [len(IMAGES)] * 4


def test_the_images_of_requests_that_run_together_are_no_more_than_that(start, monkeypatch):
    runs = []
    worker = start(ran=lambda images, *_: runs.append(images))
    monkeypatch.setattr(plan, "largest_batch", lambda *_: 5)
    together(worker, Asked())
    runs.clear()
    together(worker, *[Asked()] * 5)
    assert sum(runs) == 5 * len(IMAGES)
    assert max(runs) <= 5


@pytest.mark.timeout(60)
def test_a_request_waits_for_no_others_longer_than_its_target_allows(start):
    worker = start(Budget(0.1, 0.25), max_wait=3600)
    (answer,) = together(worker, Asked())
    assert len(answer.outputs["logits"]) == len(IMAGES)


def test_a_run_that_fails_is_over_for_the_budget(engine, start):
    ended = []
    worker = start()
    worker._controller.failed = lambda: ended.append(1)
    engine._compute = lambda images: 1 / 0
    with pytest.raises(RuntimeFailedError):
        together(worker, Asked())
    assert ended == [1]


def picture():
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "PNG")
    return file.getvalue()


def tensor(**parameters):
    given = {"name": "images", "datatype": "FP32", "shape": [1, 3, 64, 64], "data": [0] * 3 * 64 * 64}
    return {"inputs": [given], "outputs": [{"name": "logits"}], "parameters": parameters}


def test_answers_name_their_ratio_and_requests_may_ask_for_one(start):
    metrics = Metrics()
    worker = start(None, metrics.ran)
    with TestClient(create_app(lambda: worker, "small", Limits(), metrics=metrics)) as client:
        for query, expected in (("", 0.5), ("?keep_ratio=0.25", 0.25), ("?least_keep_ratio=0.75", 0.75)):
            answer = client.post(f"/v1/predict{query}", content=picture())
            assert answer.json()["keep_ratios"] == [expected] * 2
            assert answer.headers["evodeploy-keep-ratio"] == f"{expected:g}"
        answer = client.post("/v2/models/small/infer", json=tensor(keep_ratio=0.25))
        assert answer.json()["parameters"] == {"keep_ratio": "0.25"}
        assert answer.headers["evodeploy-keep-ratio"] == "0.25"
        for wrong in (0, 1.5, True, "0.5", [0.5]):
            refused = client.post("/v2/models/small/infer", json=tensor(keep_ratio=wrong))
            assert (refused.status_code, "'keep_ratio' is" in refused.json()["error"]) == (400, True)
        refused = client.post("/v2/models/small/infer", json=tensor(keep_ratio=0.5, least_keep_ratio=0.75))
        assert (refused.status_code, "exclude each other" in refused.json()["error"]) == (400, True)
        both = "keep_ratio=0.5&least_keep_ratio=0.75"
        for wrong in ("keep_ratio=0.1", "keep_ratio=nan", "least_keep_ratio=0", "least_keep_ratio=inf", both):
            refused = client.post(f"/v1/predict?{wrong}", content=picture())
            assert (refused.status_code, list(refused.json())) == (400, ["error"])
        described = client.get("/v2/models/small").json()["parameters"]
        assert (described["elastic"], described["target"]) == ([[0.2, 1.0]] * 2, None)
        assert 'evodeploy_keep_ratio_bucket{le="0.25"} 2.0' in client.get("/metrics").text
        assert "evodeploy_keep_ratio_count 4.0" in client.get("/metrics").text


def test_the_bounds_that_are_stated_are_taken(start, engine):
    engine.info = dataclasses.replace(INFO, elastic=(ElasticStage(196, 64, 196), ElasticStage(100, 29, 58)))
    lows, highs = zip(*metadata_of(start(None), "small")["parameters"]["elastic"], strict=True)
    assert (engine.info.keep_of(lows), engine.info.keep_of(highs)) == ((64, 29), (196, 58))


def test_who_cannot_be_answered_in_time_is_refused_at_once(start, engine, monkeypatch):
    worker = start()
    monkeypatch.setattr(plan, "admits", lambda *_: False)
    with TestClient(create_app(lambda: worker, "small", Limits())) as client:
        for path, body in (("/v1/predict", {"content": picture()}), ("/v2/models/small/infer", {"json": tensor()})):
            refused = client.post(path, **body)
            assert refused.status_code == 429
            assert refused.headers["retry-after"] == "1"
            assert "not all would be answered within 90% of 10000 ms" in refused.json()["error"]
        assert client.get("/v2/health/ready").status_code == 200
    assert engine.keeps == []


def test_who_leaves_before_it_is_run_waits_no_more(start):
    worker = start()

    async def leave():
        asked = asyncio.ensure_future(worker.run(IMAGES, Asked()))
        await asyncio.sleep(0)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)

    asyncio.run(leave())
    worker.close()
    assert worker._controller._waiting == set()


def test_a_static_artefact_has_no_budget_and_takes_no_ratio(start, monkeypatch):
    with pytest.raises(InputError, match="leave --target-p99 out, or export the checkpoint with --elastic"):
        named(Settings(Path("a.onnx"), budget=BUDGET), FakeEngine(STATIC))
    with pytest.raises(InputError, match=r"keeps 12 to 64, ratios 0.2 to 1"):
        start(Budget(10.0, 0.1))


def test_an_error_that_nobody_expects_is_said_in_json_and_counted_as_one(start, monkeypatch):
    metrics, worker = Metrics(), start()

    async def fails(*_):
        raise RuntimeError("secret")

    monkeypatch.setattr(worker, "run", fails)
    application = create_app(lambda: worker, "small", Limits(), metrics=metrics)
    with TestClient(application, raise_server_exceptions=False) as client:
        failed = client.post("/v1/predict", content=picture())
        assert (failed.status_code, failed.json()) == (500, {"error": "the server failed: its log says why"})
    assert 'evodeploy_requests_total{status="500"} 1.0' in metrics.text().decode()
