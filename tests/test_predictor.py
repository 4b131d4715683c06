from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import evodeploy
from evodeploy.engines.fake import FakeEngine
from evodeploy.errors import BadFileError, UsageError
from evodeploy.predictor import Predictor, softmax
from evodeploy.specs import BatchRange, ModelInfo

INFO = ModelInfo("fake", 8, 4, 3, "stage", (0.5,), class_names=("ant", "bee", "cat"))


def plain(value):
    return Image.new("RGB", (20, 10), (value, value, value))


def predictor(**options):
    return Predictor(FakeEngine(INFO, **options))


def logits_by_first_pixel(images):
    return {"logits": np.stack([images[:, 0, 0, 0], np.zeros(len(images)), -images[:, 0, 0, 0]], axis=1)}


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
