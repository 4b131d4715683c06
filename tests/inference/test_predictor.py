from __future__ import annotations

import dataclasses
import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest
from fake_engines import FakeEngine, logits_by_first_pixel
from PIL import Image
from sharing import in_threads

import evodeploy
from evodeploy.elastic import ElasticStage
from evodeploy.errors import BadFileError, InputError, RuntimeFailedError, UsageError
from evodeploy.inference.answers import softmax
from evodeploy.inference.predictor import Predictor
from evodeploy.inference.records import Failure
from evodeploy.specs import BatchRange, ModelInfo

INFO = ModelInfo("fake", 8, 4, 3, "stage", (0.5,), class_names=("ant", "bee", "cat"))


def plain(value):
    return Image.new("RGB", (20, 10), (value, value, value))


def predictor(**options):
    return Predictor(FakeEngine(INFO, **options))


def test_a_picture_with_a_damaged_exif_block_is_predicted(tmp_path):
    good, bad = tmp_path / "good.jpg", tmp_path / "bad.jpg"
    Image.new("RGB", (8, 8)).save(good)
    Image.new("RGB", (8, 8)).save(bad, exif=b"Exif\0\0XX*\0\x08\0\0\0\0\0", dpi=(72, 72))
    with predictor() as p:
        first, second, third = p.stream([good, bad, good])
    assert first.label == second.label == third.label


def test_one_image_gives_one_prediction_and_many_a_list():
    with predictor(compute=logits_by_first_pixel) as p:
        assert p.predict(plain(255)).label.name == "ant"
        assert [prediction.label.name for prediction in p.predict([plain(0), plain(255)])] == ["cat", "ant"]
        assert p.predict([]) == []


def test_labels_are_the_softmax_best_first():
    with predictor(compute=lambda images: {"logits": np.float32([[1.0, 3.0, 2.0]])}) as p:
        labels = p.predict(plain(0), top=2).labels
    assert [(label.name, label.index) for label in labels] == [("bee", 1), ("cat", 2)]
    total = np.exp([1.0, 3.0, 2.0]).sum()
    assert [label.probability for label in labels] == pytest.approx([np.exp(3.0) / total, np.exp(2.0) / total])


def test_more_classes_asked_for_than_there_are_gives_all():
    with predictor() as p:
        assert len(p.predict(plain(0), top=10).labels) == 3
        with pytest.raises(UsageError, match="top is 0"):
            p.predict(plain(0), top=0)


def test_classes_without_names_are_numbered():
    nameless = ModelInfo("fake", 8, 4, 3, "stage", (0.5,))
    with Predictor(FakeEngine(nameless)) as p:
        assert p.predict(plain(0)).label.name.startswith("class ")


@pytest.mark.parametrize(
    "batch", [BatchRange(), BatchRange(1, 3), BatchRange(4, 4), BatchRange(2, 5), BatchRange(40, 50)]
)
def test_any_number_of_images_through_any_batch_range(batch):
    with predictor(batch=batch, compute=logits_by_first_pixel) as p:
        images = np.arange(70, dtype=np.float32)[:, None, None, None] * np.ones((70, 3, 8, 8), np.float32)
        np.testing.assert_array_equal(p.predict_logits(images)[:, 0], np.arange(70))
        assert p.predict_logits(images[:0]).shape == (0, 3)


def test_an_artefact_without_metadata_is_refused(tmp_path):
    engine = FakeEngine(INFO)
    engine.info = None
    with pytest.raises(BadFileError, match="carries no evodeploy metadata"):
        Predictor(engine)


def test_load_predicts_the_same_from_checkpoint_and_onnx(small_checkpoint, small_onnx):
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (90, 70, 3), dtype=np.uint8)) for _ in range(5)]
    with evodeploy.load(small_checkpoint) as torch, evodeploy.load(small_onnx, "openvino") as openvino:
        assert torch.engine.name == "torch"
        assert openvino.engine.name == "openvino"
        for first, second in zip(torch.predict(images), openvino.predict(images), strict=True):
            assert [label.index for label in first.labels] == [label.index for label in second.labels]
            assert [x.probability for x in first.labels] == pytest.approx(
                [x.probability for x in second.labels], abs=1e-4
            )


def test_softmax_survives_large_logits():
    np.testing.assert_allclose(softmax(np.float32([[1000.0, 1000.0]])), [[0.5, 0.5]])


def with_tokens(images):
    order = np.argsort(images[:, 0].reshape(len(images), -1), axis=1, kind="stable")
    return {"logits": np.zeros((len(images), 3), np.float32), "selected_0": order[:, :2], "selected_1": order[:, :1]}


def test_kept_tokens_and_timing_are_reported():
    with predictor(compute=with_tokens) as p:
        first, second = p.predict([plain(0), plain(200)])
    assert first.kept == ((0, 1), (0,))
    assert second.timing.batch == 2
    assert second.timing.inference > 0
    assert second.timing.decode > 0
    with predictor() as p:
        assert p.predict(plain(0)).kept is None


def test_a_stream_continues_after_broken_images(tmp_path):
    plain(255).save(tmp_path / "fine.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    sources = [tmp_path / "fine.png", tmp_path / "broken.png", plain(0), np.zeros(3), tmp_path / "none.png"] * 9
    with predictor(compute=logits_by_first_pixel) as p:
        answers = list(p.stream(sources, batch=4))
        with pytest.raises(BadFileError, match=r"broken\.png is not a readable image"):
            p.predict(sources)
    names = [type(answer.error).__name__ if isinstance(answer, Failure) else answer.label.name for answer in answers]
    assert names == ["ant", "BadFileError", "cat", "InputError", "UsageError"] * 9
    assert answers[1].source == tmp_path / "broken.png"


def test_a_stream_reads_an_endless_source():
    with predictor() as p:
        answers = p.stream((plain(7) for _ in itertools.count()), batch=2)
        assert len(list(itertools.islice(answers, 20))) == 20
        answers.close()


def test_submitted_images_are_run_together_with_tops_of_their_own():
    engine = FakeEngine(INFO, compute=logits_by_first_pixel)
    with Predictor(engine, max_batch=8, max_wait=0.05) as p:
        futures = [p.submit(plain(255 * (i % 2)), top=1 + i % 3) for i in range(24)]
        answers = [future.result(10) for future in futures]
    assert [len(answer.labels) for answer in answers] == [1, 2, 3] * 8
    assert [answer.label.name for answer in answers] == ["cat", "ant"] * 12
    assert engine.calls < 24


def test_a_broken_image_fails_its_future_alone(tmp_path):
    with predictor() as p:
        broken, fine = p.submit(tmp_path / "none.png"), p.submit(plain(1))
        with pytest.raises(UsageError, match="does not exist"):
            broken.result(10)
        assert fine.result(10).labels


def test_closing_finishes_what_was_submitted_and_refuses_more():
    p = predictor()
    futures = [p.submit(plain(i)) for i in range(40)]
    p.close()
    assert all(future.result(0).labels for future in futures)
    p.close()
    for call in (p.submit, p.predict):
        with pytest.raises(UsageError, match="the predictor is closed"):
            call(plain(0))


def best_two(images):
    return {"probabilities": np.float32([[0.7, 0.2]] * len(images)), "classes": np.int64([[2, 0]] * len(images))}


def test_an_artefact_that_ranks_by_itself_is_believed():
    info = dataclasses.replace(INFO, top_k=2, input_format="uint8")
    engine = FakeEngine(info, compute=best_two)
    with Predictor(engine) as p:
        labels = p.predict(plain(3), top=2).labels
        assert [(label.name, round(label.probability, 3)) for label in labels] == [("cat", 0.7), ("ant", 0.2)]
        assert p.predict(plain(3), top=1).labels == labels[:1]
        with pytest.raises(UsageError, match=r"top is 3, but the artefact gives 2 classes: export it with --top-k 3"):
            p.predict(plain(3), top=3)
        with pytest.raises(UsageError, match="gives its 2 best classes, not logits"):
            p.predict_logits(np.zeros((1, 8, 8, 3), np.uint8))


def test_it_says_what_runs_where(caplog, small_onnx):
    with caplog.at_level("INFO", "evodeploy"), evodeploy.load(small_onnx, "onnxruntime") as p:
        assert repr(p) == "<Predictor evo_deit_test fp32 with onnxruntime on cpu>"
    assert "with onnxruntime on cpu" in caplog.text


@pytest.mark.parametrize("options", [{"max_batch": 0}, {"max_wait": -1.0}])
def test_batching_that_cannot_be_is_refused(options):
    with pytest.raises(UsageError, match="max_batch is"):
        Predictor(FakeEngine(INFO), **options)


def nan_where_dark(images):
    outputs = logits_by_first_pixel(images)
    outputs["logits"][images[:, 0, 0, 0] < 0] = np.nan
    return outputs


def test_an_output_that_is_no_number_is_a_failure_of_its_image_alone():
    with predictor(compute=nan_where_dark) as p:
        light, dark = plain(255), plain(0)
        answers = list(p.stream([light, dark, light]))
        assert [isinstance(answer, Failure) for answer in answers] == [False, True, False]
        assert answers[0].label.name == answers[2].label.name == "ant"
        assert "is not finite" in str(answers[1])
        assert answers[0].timing.batch == 3
        with pytest.raises(RuntimeFailedError, match="is not finite"):
            p.predict([light, dark])
        futures = [p.submit(light), p.submit(dark)]
        assert futures[0].result(10).label.name == "ant"
        with pytest.raises(RuntimeFailedError, match="is not finite"):
            futures[1].result(10)
        images = np.stack([np.ones((3, 8, 8)), -np.ones((3, 8, 8))]).astype(np.float32)
        assert p.predict_logits(images[:1]).shape == (1, 3)
        with pytest.raises(RuntimeFailedError, match="image 1 of 2: .* is not finite"):
            p.predict_logits(images)


def test_infinite_logits_are_no_answer():
    infinite = {"logits": np.float32([[np.inf, 0, 0]])}
    with predictor(compute=lambda images: infinite) as p, pytest.raises(RuntimeFailedError, match="is not finite"):
        p.predict(plain(0))


def test_a_failure_names_its_image_once(tmp_path):
    path = tmp_path / "dark.png"
    plain(0).save(path)
    with predictor(compute=nan_where_dark) as p:
        (nan, missing) = p.stream([path, tmp_path / "missing.png"])
    assert str(nan).startswith(f"{path}: the model's output")
    assert str(missing).count("missing.png") == 1


def test_images_are_predicted_into_a_table_or_a_function(tmp_path, logged):
    plain(255).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    counted, seen = [], []
    with predictor(compute=logits_by_first_pixel) as p:
        written = p.write(tmp_path, tmp_path / "out.jsonl", top=2, progress=lambda *each: counted.append(each))
        p.write([plain(0), plain(255)], lambda image, answer: seen.append(answer.label.name))
        with pytest.raises(UsageError, match="already exists"):
            p.write(tmp_path / "a.png", str(tmp_path / "out.jsonl"))
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["labels"] and row["labels"][0] for row in rows] == ["ant", None]
    assert len(rows[0]["labels"]) == 2
    assert str(written) == f"{tmp_path / 'out.jsonl'}  predictions for 1 of 2 images"
    assert written.to_dict() | {"failures": []} == {
        "output": str(tmp_path / "out.jsonl"), "images": 2, "predictions": 1, "failures": [],
    }  # fmt: skip
    assert (counted, seen) == ([(1, 2), (2, 2)], ["cat", "ant"])
    assert logged[-1] == f"left out: {written.failures[0]}"


def test_no_table_is_left_where_no_image_has_a_prediction(tmp_path):
    (tmp_path / "b.png").write_bytes(b"no image")
    with predictor() as p, pytest.raises(BadFileError, match="none of 1 images has a prediction; the first: "):
        p.write(tmp_path, tmp_path / "out.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["b.png"]


ELASTIC = dataclasses.replace(INFO, keep_ratios=(0.5, 0.3), elastic=(ElasticStage(40, 4, 40), ElasticStage(10, 2, 9)))


def test_a_call_chooses_the_keep_ratio_and_the_prediction_says_which():
    engine = FakeEngine(ELASTIC)
    with Predictor(engine) as p:
        assert p.predict(plain(0)).keep_ratios == (0.5, 0.3)
        assert p.predict(plain(0), keep_ratio=0.25).keep_ratios == (0.25, 0.25)
        assert [each.keep_ratios for each in p.predict([plain(0)] * 2, keep_ratio=(1.0, 0.9))] == [(1.0, 0.9)] * 2
        assert [each.keep_ratios for each in p.stream([plain(0)] * 3, batch=2, keep_ratio=0.5)] == [(0.5, 0.5)] * 3
        assert p.submit(plain(0), keep_ratio=0.8).result().to_dict()["keep_ratios"] == [0.8, 0.8]
        refused = "stage 1 cannot keep 10 of its 10 tokens: this artefact keeps 2 to 9, ratios 0.2 to 0.9"
        for call in (p.predict, p.submit, lambda image, keep_ratio: p.stream([image], keep_ratio=keep_ratio)):
            with pytest.raises(InputError, match=refused):
                call(plain(0), keep_ratio=1.0)
    assert engine.keeps == [(20, 3), (10, 2), (40, 9), (20, 5), (20, 5), (32, 8)]


def test_a_static_artefact_refuses_a_keep_ratio_and_says_its_own():
    with predictor() as p:
        assert p.predict(plain(0)).keep_ratios == (0.5,)
        with pytest.raises(InputError, match=r"keeps a fixed share of tokens \(0.5\): leave the keep ratio out"):
            p.predict(plain(0), keep_ratio=0.5)


def test_threads_that_submit_at_other_ratios_share_runs_with_their_like_only():
    """Each run is of one ratio, and all answers are at the ratio asked for."""
    ratios = (0.25, 0.5, 0.75, 0.9)
    engine = FakeEngine(ELASTIC, compute=logits_by_first_pixel)
    with Predictor(engine, max_batch=8, max_wait=0.01) as p:

        def work(number):
            futures = []
            for turn in range(24):
                ratio = ratios[(number + turn) % 4]
                futures.append((ratio, turn % 2, p.submit(plain(255 * (turn % 2)), top=1, keep_ratio=ratio)))
            for ratio, bright, future in futures:
                answer = future.result(timeout=60)
                assert answer.keep_ratios == (ratio, ratio)
                assert answer.label.name == ("ant" if bright else "cat")

        in_threads(work)
    assert set(engine.keeps) == {ELASTIC.keep_of(ratio) for ratio in ratios}
    assert engine.calls < 4 * 24  # they did share


def test_a_path_of_any_kind_is_an_image(tmp_path):
    plain(255).save(tmp_path / "a.png")
    (entry,) = os.scandir(tmp_path)  # a PathLike that is no Path
    with predictor() as p:
        assert p.predict(entry).path == entry.path
        assert p.predict([entry])[0].path == p.submit(entry).result().path == entry.path
        assert p.predict(entry).plot().width
        missing = tmp_path / "none.png"
        with pytest.raises(UsageError, match=r"none\.png does not exist"):
            p.predict(missing)


@pytest.mark.parametrize("one", ["a.png", b"png", Path("a.png")])
def test_a_stream_of_one_image_is_refused(one):
    with predictor() as p, pytest.raises(UsageError, match="stream takes several images, and got one"):
        p.stream(one)


@pytest.mark.parametrize("images", [None, 5])
def test_what_is_no_image_is_refused(images):
    with predictor() as p, pytest.raises(InputError, match=f"images are of type {type(images).__name__}, expected"):
        p.predict(images)


@pytest.mark.parametrize("source", [None, 5, {"a": 1}])
def test_a_source_of_another_kind_is_refused(source):
    with pytest.raises(UsageError, match=f"a source is of type {type(source).__name__}, expected a path"):
        evodeploy.load(source)


def test_an_engine_without_metadata_is_closed_again(monkeypatch):
    engine = FakeEngine(INFO)
    engine.info = None
    monkeypatch.setattr("evodeploy.inference.loading.open_engine", lambda *_: engine)
    with pytest.raises(BadFileError, match="carries no evodeploy metadata"):
        evodeploy.load("net.onnx")
    with pytest.raises(UsageError, match="closed"):
        engine.run(np.zeros((1, 3, 8, 8), np.float32))
