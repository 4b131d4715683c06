"""Whole runs on a real Ray: two actors, a killed driver, a lost actor."""

from __future__ import annotations

import json
import os
import re
import signal
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray.data
from graphs import restated, retrained, sharded
from PIL import Image
from processes import listening, named_below
from served import started

import evodeploy
from evodeploy.batch import pipeline
from evodeploy.batch import run as batch_run
from evodeploy.batch.inputs import Files, Listing
from evodeploy.batch.pipeline import VARIABLES
from evodeploy.batch.run import BatchRequest, run_batch
from evodeploy.cluster import own_ray
from evodeploy.errors import OutOfMemoryError, RuntimeFailedError, UsageError
from evodeploy.specs import EngineOptions

IMAGES = 240
SHARD = 4


@pytest.fixture(scope="module", autouse=True)
def ray_here():
    """One Ray for all tests of this process; an address of another is ignored."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", "127.0.0.1:9")
        with own_ray(f"test-{os.getpid()}", VARIABLES, num_cpus=4, object_store_memory=128 << 20):
            patch.setenv("RAY_ADDRESS", "127.0.0.1:9")  # for the commands that tests start
            yield


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Images in a folder and in a table, one of each broken."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(1)
    for i in range(IMAGES):
        Image.fromarray(rng.integers(0, 256, (70, 80, 3), dtype=np.uint8)).save(folder / f"{i:03}.png")
    data = [(folder / f"{i:03}.png").read_bytes() for i in range(10)]
    pq.write_table(pa.table({"image": [*data, b"junk"]}), folder / "more.parquet")
    (folder / "100.png").write_bytes(b"junk")
    return folder


def request(model, photos, out, **changes):
    return BatchRequest(model, (str(photos),), out, **({"actors": 2, "batch": 3, "top": 2, "shard": SHARD} | changes))


def run(*args, **changes):
    return run_batch(request(*args, **changes), progress=lambda done, images: None)


def parts(out):
    return {path.relative_to(out): path.read_bytes() for path in sorted(out.rglob("part-*.parquet"))}


@pytest.fixture(scope="module")
def whole(small_onnx, photos, tmp_path_factory):
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp("whole") / "out"
    return out, run(small_onnx, photos, out)


def test_every_image_is_answered_once_as_a_predictor_answers_it(whole, small_onnx, photos):
    out, summary = whole
    assert (summary.images, summary.predicted, summary.broken, summary.resumed) == (IMAGES + 11, IMAGES + 9, 2, 0)
    rows = pq.read_table(out / "predictions").to_pylist()
    files = [path for path in sorted(photos.glob("*.png")) if path.name != "100.png"]
    table = str(photos / "more.parquet")
    assert [(row["path"], row["row"]) for row in rows] == [
        *((str(path), None) for path in files), *((table, i) for i in range(10)),
    ]  # fmt: skip
    with evodeploy.load(small_onnx) as predictor:
        for row, prediction in zip(rows, predictor.predict(files, top=2), strict=False):
            assert row["labels"] == [label.name for label in prediction.labels]
            assert row["indices"] == [label.index for label in prediction.labels]
            assert row["probabilities"] == pytest.approx([label.probability for label in prediction.labels], abs=1e-5)
    errors = pq.read_table(out / "errors").to_pylist()
    assert [(row["path"], row["row"]) for row in errors] == [(str(photos / "100.png"), None), (table, 10)]
    assert json.loads((out / "_SUCCESS").read_text())["predicted"] == IMAGES + 9


def killed(small_onnx, photos, out, how):
    """Start the command, stop it by the signal `how` once some parts are there, and return its exit code."""
    options = ("--actors", 2, "--batch", 3, "--top", 2, "--shard", SHARD)
    process = started("batch", small_onnx, photos, "--output", out, *options)
    while len(parts(out)) < 3:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(how)
    _, said = process.communicate(timeout=60)
    return process.returncode, said


def test_a_killed_run_resumes_and_equals_an_uninterrupted_one(whole, small_onnx, photos, tmp_path):
    out = tmp_path / "out"
    code, said = killed(small_onnx, photos, out, signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert "Set ray log level" not in said
    done = len(list((out / "predictions").glob("part-*")))
    assert not (out / "_SUCCESS").exists()
    summary = run(small_onnx, photos, out, actors=1)
    assert 0 < summary.resumed <= done * SHARD
    assert (summary.predicted, summary.broken) == (IMAGES + 9, 2)
    assert parts(out) == parts(whole[0])


def test_a_complete_run_is_left_as_it_is(whole, small_onnx, photos):
    before = {path: path.stat().st_mtime_ns for path in whole[0].rglob("part-*")}
    assert run(small_onnx, photos, whole[0]).resumed == IMAGES + 11
    assert {path: path.stat().st_mtime_ns for path in whole[0].rglob("part-*")} == before
    with pytest.raises(UsageError, match="another run"):
        run(small_onnx, photos, whole[0], top=3)


def test_other_weights_in_a_file_of_their_own_are_another_run(small_onnx, tmp_path):
    path, weights = sharded(small_onnx, tmp_path)
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (70, 80)).save(tmp_path / "photos" / "a.png")
    run(path, tmp_path / "photos", tmp_path / "out")
    retrained(weights)
    with pytest.raises(UsageError, match="another run"):
        run(path, tmp_path / "photos", tmp_path / "out")


def test_another_fixed_keep_ratio_is_another_run(small_elastic, tmp_path):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (70, 80)).save(tmp_path / "photos" / "a.png")
    half, third = (EngineOptions(fixed_keep=ratio) for ratio in (0.5, 0.3))
    run(small_elastic, tmp_path / "photos", tmp_path / "out", engine="openvino", options=half)
    with pytest.raises(UsageError, match=r"another run \(its keep_ratios: \(0.5, 0.5\), now \(0.3, 0.3\)\)"):
        run(small_elastic, tmp_path / "photos", tmp_path / "out", engine="openvino", options=third)


def test_a_run_whose_output_is_below_its_input_resumes(small_onnx, tmp_path):
    for name in "ab":
        Image.new("RGB", (70, 80)).save(tmp_path / f"{name}.png")
    out = tmp_path / "deep" / "out"
    run(small_onnx, tmp_path, out, shard=1)
    (out / "predictions" / "part-00001.parquet").unlink()
    summary = run(small_onnx, tmp_path, out, shard=1)
    assert (summary.images, summary.resumed, summary.predicted) == (2, 1, 2)


def failing(monkeypatch, where, fail):
    """Let each worker `fail` that decodes or that predicts."""
    driver = os.getpid()

    class Predicting(pipeline.RayAnswerer):
        def _answers(self, images):
            fail()

    class Decoding(Files):
        def __len__(self):
            return len(self.paths) if os.getpid() == driver else fail()

    def map_batches(self, fn, map_batches=ray.data.Dataset.map_batches, **how):
        return map_batches(self, Predicting if fn is pipeline.RayAnswerer else fn, **how)

    if where == "predicted":  # workers import the module anew, so nothing in it is changed
        monkeypatch.setattr(ray.data.Dataset, "map_batches", map_batches)
    else:
        monkeypatch.setattr(batch_run, "list_inputs", lambda *args: Listing((Decoding(("a.png",)),), "0" * 64))


@pytest.mark.parametrize("where", ["decoded", "predicted"])
@pytest.mark.parametrize(
    ("error", "said"),
    [(OutOfMemoryError("it ran out of memory: use a smaller batch"), "it ran out of memory: use a smaller batch"),
     (MemoryError(), "MemoryError")],
)  # fmt: skip
def test_what_ends_a_run_is_said(small_onnx, photos, tmp_path, monkeypatch, where, error, said):
    def fail():
        raise error

    failing(monkeypatch, where, fail)
    with pytest.raises(RuntimeFailedError, match=f"^the run stopped: {said}$"):
        run(small_onnx, photos, tmp_path / "out")


@pytest.mark.parametrize("where", ["decoded", "predicted"])
def test_work_that_kills_its_worker_is_not_tried_for_ever(small_onnx, photos, tmp_path, monkeypatch, where):
    def fail():
        os._exit(1)

    failing(monkeypatch, where, fail)
    match = rf"^the run stopped: 5 workers in a row died while they {where} .*\.png"
    with pytest.raises(RuntimeFailedError, match=match):
        run(small_onnx, photos, tmp_path / "out", actors=1)


def test_a_run_ends_where_its_artefact_is_replaced(small_onnx, photos, tmp_path):
    path = restated(small_onnx, tmp_path / "model.onnx")

    def replace(done, images):
        restated(small_onnx, path, source="retrained.pth")
        for actor in named_below(os.getpid(), "Answerer"):
            os.kill(actor, signal.SIGKILL)

    with pytest.raises(RuntimeFailedError, match=r"^the run stopped: .*model\.onnx has changed since the run began"):
        run_batch(request(path, photos, tmp_path / "out"), progress=replace)


def test_ray_listens_on_this_machine_only():
    found = list(listening(os.getpid()))
    assert len(found) > 5
    assert [(command, host) for command, host, _ in found if not host.is_loopback] == []


def test_more_classes_than_there_are_are_refused(small_onnx, photos, tmp_path):
    with pytest.raises(UsageError, match="top is 11, but evo_deit_test has 10 classes"):
        run(small_onnx, photos, tmp_path / "out", top=11)
    assert not (tmp_path / "out").exists()


def test_a_lost_actor_costs_no_row(whole, small_onnx, photos, tmp_path):
    lost = []

    def end_one_actor(done, images):
        if not lost:
            lost.extend(named_below(os.getpid(), "Answerer")[:1])
            os.kill(lost[0], signal.SIGKILL)

    run_batch(request(small_onnx, photos, tmp_path / "out"), progress=end_one_actor)
    assert lost
    assert parts(tmp_path / "out") == parts(whole[0])


@pytest.mark.slow
@pytest.mark.parametrize(("how", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
def test_a_signal_says_how_to_resume(whole, small_onnx, photos, tmp_path, how, word):
    code, said = killed(small_onnx, photos, tmp_path / "out", how)
    assert code == 128 + how
    kept = f"{word}: the finished shards are kept, and the same command resumes from there"
    assert [line for line in said.splitlines() if line != f"Error: {word}"][-1] == kept
    assert not re.search(r"Traceback|\*\*\*|received at time|stack trace", said, re.IGNORECASE), said
    run(small_onnx, photos, tmp_path / "out")
    assert parts(tmp_path / "out") == parts(whole[0])
