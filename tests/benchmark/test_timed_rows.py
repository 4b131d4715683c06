from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import pytest
from benchmark.fakes import INFO, QUICK, fake, missing, raced
from fake_engines import FakeEngine, FakeResident, brightness_logits

from evodeploy.benchmark.row_spec import Kept, RowSpec
from evodeploy.benchmark.timed_rows import timed_rows
from evodeploy.elastic import ElasticStage
from evodeploy.errors import OutOfMemoryError, RuntimeFailedError, UsageError
from evodeploy.inference.answers import softmax
from evodeploy.preprocess import normalised
from evodeploy.specs import BatchRange, Preprocessing, TensorSpec


def test_rows_come_in_order_and_are_judged_by_pytorch():
    rows = raced([fake("onnxruntime"), fake("torch"), fake("torch", "dense")], [1, 4])
    assert [(row.batch, row.spec.engine, row.spec.role) for row in rows] == [
        (batch, *which) for batch in (1, 4) for which in (("onnxruntime", "evo"), ("torch", "evo"), ("torch", "dense"))
    ]
    for row in rows:
        assert len(row.timing.samples) == 6
        assert row.images_per_second.value == pytest.approx(row.batch / row.timing.median)
        assert (row.verdict is None) == (row.spec.engine == "torch")
        assert not row.wrong
        assert row.transfers == "none"


def test_an_engine_that_cannot_open_or_fails_is_a_row_with_its_reason_and_the_others_are_timed():
    def fail(images):
        raise RuntimeError("a kernel is missing")

    rows = raced([missing("tensorrt"), fake("broken", compute=fail), fake("narrow", batch=BatchRange(1, 2)),
                  fake("torch")])  # fmt: skip
    assert [row.timing is not None for row in rows] == [False, False, False, True]
    assert rows[0].reason == "no GPU here"
    assert "a kernel is missing" in rows[1].reason
    assert "range of 1 to 2" in rows[2].reason


def test_one_that_fails_on_a_gpu_knows_what_its_time_would_hold():
    def fail(images):
        raise RuntimeError("a kernel is missing")

    (row,) = raced([fake("torch-compile", compute=fail, device_seconds=0.25)])
    assert (row.device, row.transfers, row.timing) == ("cuda:0", "included", None)


def test_one_that_fails_while_timed_leaves_and_the_others_are_timed_anew():
    calls = []

    def fail_later(images):
        calls.append(len(images))
        if len(calls) > 8:
            raise RuntimeError("too hot")
        return {"logits": brightness_logits(images, 3)}

    rows = raced([fake("torch"), fake("hot", compute=fail_later)])
    assert len(rows[0].timing.samples) == 6
    assert (rows[1].timing, "too hot" in rows[1].reason) == (None, True)


def test_a_failure_that_only_mentions_memory_halves_nothing():
    def broken(images):
        raise RuntimeFailedError("cuda:0 cannot be used by this process any more, perhaps out of memory")

    _, failed = raced([fake("torch"), fake("lost", compute=broken)], [8])
    assert (failed.batch, failed.timing) == (8, None)
    assert "cannot be used" in failed.reason


@pytest.mark.parametrize("error", [OutOfMemoryError("cuda:0 has no room for 8 MB more"), MemoryError("not that much")])
def test_memory_that_runs_out_halves_the_batch(error):
    def small_memory(images):
        if len(images) > 2:
            raise error
        return {"logits": brightness_logits(images, 3)}

    _, halved = raced([fake("torch"), fake("small", compute=small_memory)], [8])
    assert (halved.asked, halved.batch, halved.timing is not None) == (8, 2, True)


def test_where_no_half_of_the_batch_is_taken_the_reason_is_the_memory():
    def no_room(images):
        raise OutOfMemoryError("cuda:0 has no room for 8 MB more")

    gap = {"batch": BatchRange(1, 8), "ranges": (BatchRange(1, 2), BatchRange(8, 8))}
    for taken in ({"batch": BatchRange(8, 8)}, gap):
        _, failed = raced([fake("torch"), fake("fixed", compute=no_room, **taken)], [8])
        assert (failed.batch, failed.timing) == (8, None)
        assert "has no room for 8 MB more" in failed.reason


@pytest.mark.parametrize(
    ("fast_path", "ratio", "wrong"),
    [("rest", None, True), ("merge", None, False), ("merge", 0.5, False), ("merge", 1.0, True)],
)
def test_a_network_that_merges_is_judged_by_the_median_image(fast_path, ratio, wrong):
    """An elastic one that keeps every token merges none."""

    def rounded(images):
        logits = brightness_logits(images, 3)
        logits[images[:, 0, 0, 0] > 0.3] *= 2
        return {"logits": logits}

    info, keep = dataclasses.replace(INFO, fast_path=fast_path), None
    if ratio is not None:
        info = dataclasses.replace(info, elastic=(ElasticStage(4, 1, 4),))
        keep = Kept((ratio,), (int(ratio * 4),))
    torch, merging = (
        RowSpec(name, "evo", precision, "", partial(FakeEngine, info, compute=compute), keep=keep)
        for name, precision, compute in (("torch", "fp32", None), ("bf16", "bf16", rounded))
    )
    row = raced([torch, merging])[1]
    assert 0.25 < row.verdict.deviating < 0.5
    assert row.wrong is wrong


def test_a_fast_wrong_row_is_marked():
    wrong = fake("fast", compute=lambda images: {"logits": brightness_logits(images, 3) + 1})
    torch, fast = raced([fake("torch"), wrong])
    assert (torch.wrong, fast.wrong) == (False, True)
    assert "of the largest" in str(fast.verdict)


def scaled(by):
    return lambda images: {"logits": brightness_logits(images, 3) * np.float32(by)}


def test_without_pytorch_the_first_row_in_fp32_judges():
    first, second = raced([fake("openvino", precision="bf16", compute=scaled(1.01)), fake("onnxruntime")])
    assert (first.verdict.correct, first.verdict.limit, second.verdict) == (True, 8e-2, None)


def test_the_lower_precision_of_the_two_says_how_much_may_differ():
    """Without a row in FP32 the first judges: 9 % are more than BF16 rounds, and less than INT8."""
    first, second = raced([fake("openvino", precision="int8", compute=scaled(1.09)), fake("torch", precision="bf16")])
    assert (first.verdict, second.verdict.correct, second.verdict.limit) == (None, True, 0.1)


def test_a_device_gives_a_row_with_transfers_and_one_without():
    host, included, resident = raced([fake("torch"), fake("tensorrt", device_seconds=0.25)], [2])
    assert (host.transfers, included.transfers, resident.transfers) == ("none", "included", "resident")
    assert resident.timing.median == 0.25
    assert resident.images_per_second.value == 8
    assert not resident.wrong


def test_an_engine_that_gains_by_batches_in_flight_has_rows_with_two_and_three():
    rows = raced([fake("torch", device_seconds=0.25), fake("tensorrt", device_seconds=0.25, deepest=3)], [2])
    assert [(row.spec.engine, row.transfers, row.in_flight) for row in rows] == [
        ("torch", "included", 1), ("torch", "resident", 1),
        *(("tensorrt", transfers, depth) for transfers in ("included", "resident") for depth in (1, 2, 3)),
    ]  # fmt: skip
    assert [row.timing.median for row in rows[-3:]] == [0.25, 0.125, 0.25 / 3]
    assert [row.images_per_second.value for row in rows[-3:]] == [8, 16, 24]
    assert [row.latency is None for row in rows[-3:]] == [False, True, True]
    assert not any(row.wrong for row in rows)


@pytest.mark.parametrize(("call", "exposed"), [(4, False), (5, True), (10, True)])
def test_a_row_is_exposed_where_one_of_its_samples_is(monkeypatch, call, exposed):
    """Four runs of the warm-up come before six samples."""
    times = []
    time = FakeResident.time
    monkeypatch.setattr(FakeResident, "time", lambda batch: times.append(batch) or time(batch))
    monkeypatch.setattr(FakeResident, "hidden", property(lambda batch: len(times) != call))
    *_, resident = raced([fake("tensorrt", device_seconds=0.25)], [2])
    assert (len(times), len(resident.timing.samples), resident.exposed) == (10, 6, exposed)


def test_a_depth_for_which_there_is_no_room_is_a_row_with_its_reason():
    class Small(FakeEngine):
        def resident(self, images, in_flight=1, keep=None):
            if in_flight == 3:
                raise OutOfMemoryError("cuda:0 has no room for 8 MB more")
            return super().resident(images, in_flight, keep)

        def run_many(self, batches, in_flight=2, keep=None):
            if in_flight == 3:
                raise OutOfMemoryError("cuda:0 has no room for 9 MB more")
            return super().run_many(batches, in_flight, keep)

    small = RowSpec("tensorrt", "evo", "fp16", "", lambda: Small(INFO, device_seconds=0.25, deepest=3))
    rows = raced([small], [2])
    assert [row.reason for row in rows if row.timing is None] == [
        "cuda:0 has no room for 9 MB more", "cuda:0 has no room for 8 MB more"
    ]  # fmt: skip
    assert [row.in_flight for row in rows if row.timing] == [1, 2, 1, 2]


def test_a_row_of_a_cuda_graph_that_cannot_be_recorded_says_so():
    """Its time would be that of the row without a graph."""

    class Refusing(FakeEngine):
        def without_graph(self, batch, keep=None):
            return "no graph for you" if batch == 2 else ""

    graphs = RowSpec("tensorrt", "evo", "fp32", "", lambda: Refusing(INFO, device_seconds=0.25), cuda_graph=True)
    rows = raced([fake("torch"), graphs], [1, 2])
    assert [row.timing is None for row in rows] == [False, False, False, False, True, True]
    assert rows[-1].reason == "it ran without a CUDA graph, which cannot be recorded: no graph for you"


def test_one_that_takes_other_images_is_a_row_with_its_reason():
    larger = dataclasses.replace(INFO, image_size=16)
    first, second = raced([fake("torch"), RowSpec("other", "evo", "fp32", "", lambda: FakeEngine(larger))])
    assert first.timing is not None
    assert "expected (batch, 3, 16, 16)" in second.reason


def test_engines_are_closed_at_the_end():
    opened = []

    def open_one():
        opened.append(FakeEngine(INFO))
        return opened[0]

    raced([RowSpec("torch", "evo", "fp32", "", open_one)])
    with pytest.raises(UsageError, match="closed"):
        opened[0].run(np.zeros((1, 3, 8, 8), np.float32))


def test_images_given_are_the_images_run_over_again_where_they_are_few():
    seen = []

    def look(images):
        seen.append(images)
        return {"logits": brightness_logits(images, 3)}

    given = np.stack([np.full((8, 8, 3), value, np.uint8) for value in (10, 200)])
    timed_rows([fake("torch", compute=look)], [3], QUICK, given)
    np.testing.assert_array_equal(seen[0], normalised(given[[0, 1, 0]], Preprocessing()))


def test_one_that_fails_on_the_images_of_the_check_is_a_row_with_its_reason_and_judges_no_other():
    timed = []

    def fail_on_others(images):
        timed.append(images[0].copy())
        if (images[0] != timed[0]).any():
            raise RuntimeError("these are not the timed images")
        return {"logits": brightness_logits(images, 3)}

    rows = raced([fake("torch", compute=fail_on_others), fake("onnxruntime"), fake("openvino")])
    assert (rows[0].timing, "not the timed images" in rows[0].reason) == (None, True)
    assert (rows[1].verdict, rows[2].verdict.correct) == (None, True)


def test_one_that_fails_while_its_energy_is_measured_is_a_row_with_its_reason(monkeypatch):
    def fail(run, meter):
        raise RuntimeFailedError("cuda:0 is lost")

    monkeypatch.setattr("evodeploy.benchmark.timed_rows.meter_of", lambda device: lambda: 0.0)
    monkeypatch.setattr("evodeploy.benchmark.timed_rows.joules_per_run", fail)
    budget = dataclasses.replace(QUICK, seconds=2, precision=1.0)
    (row,) = timed_rows([fake("torch")], (2,), budget)
    assert (row.timing, row.reason) == (None, "cuda:0 is lost")


def no_number(images):
    return {"logits": np.full((len(images), 3), np.nan, np.float32)}


def test_what_computes_no_numbers_is_refused_and_judges_no_other():
    rows = raced(
        [fake("torch", compute=no_number), fake("onnxruntime"), fake("openvino"), fake("bad", compute=no_number)]
    )
    assert [row.timing is None for row in rows] == [True, False, False, True]
    assert all("is not finite" in row.reason for row in (rows[0], rows[3]))
    assert rows[1].verdict is None
    assert rows[2].verdict.correct


@pytest.mark.parametrize(("seconds", "joules"), [(0, None), (2, 4.0)])
def test_energy_is_measured_where_a_row_is_given_the_time(monkeypatch, seconds, joules):
    monkeypatch.setattr("evodeploy.benchmark.timed_rows.meter_of", lambda device: lambda: 0.0)
    monkeypatch.setattr("evodeploy.benchmark.timed_rows.joules_per_run", lambda run, meter: 8.0)
    budget = dataclasses.replace(QUICK, seconds=seconds, precision=1.0)
    assert [row.joules for row in timed_rows([fake("torch")], (2,), budget)] == [joules]


def best_of(top_k, by=1.0):
    """A row whose graph gives the probabilities of its best classes, the best one `by` times what it should be."""

    class Ranked(FakeEngine):
        def __init__(self):
            def compute(images):
                ranked = -np.sort(-softmax(brightness_logits(images, 3)), axis=1)[:, :top_k]
                ranked[:, 0] *= np.float32(by)
                return {"probabilities": ranked, "classes": np.zeros((len(images), top_k), np.int64)}

            super().__init__(dataclasses.replace(INFO, top_k=top_k), compute=compute)
            shape = (None, top_k)
            self.outputs = (TensorSpec("probabilities", "float32", shape), TensorSpec("classes", "int64", shape))

    return RowSpec(f"top {top_k}", "evo", "fp32", "", Ranked)


@pytest.mark.parametrize(
    ("reference", "top1"), [(fake("torch"), 1.0), (dataclasses.replace(best_of(3), engine="torch"), None)]
)
def test_artefacts_that_give_other_numbers_of_classes_are_judged_by_what_both_give(reference, top1):
    _, *rows, wrong = raced([reference, best_of(1), best_of(2), fake("logits"), best_of(2, by=1.1)])
    assert [str(row.verdict) for row in rows if row.wrong] == []
    assert [row.verdict.top1 for row in rows] == [None, None, top1]
    assert wrong.wrong
