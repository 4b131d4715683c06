from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import evodeploy
from evodeploy.errors import UsageError
from evodeploy.inference.answers import predictions_of
from evodeploy.inference.records import Label, Prediction, Timing
from evodeploy.specs import ModelInfo
from evodeploy.visualization.figure import GAP, HEADING, MARGIN

PICTURE = np.random.default_rng(3).integers(0, 256, (90, 70, 3), np.uint8)


@pytest.fixture(scope="module")
def predicted(small_onnx, tmp_path_factory):
    """The prediction of one image, given as a path and as an array."""
    path = tmp_path_factory.mktemp("image") / "image.png"
    Image.fromarray(PICTURE).save(path)
    with evodeploy.load(small_onnx) as predictor:
        return path, predictor.predict(path), predictor.predict(PICTURE)


def test_repr_is_one_short_line():
    labels = tuple(Label("a name " * 30, index, 0.2) for index in range(5))
    shown = repr(Prediction(labels, Timing(0, 0, 1)))
    assert shown.startswith("<Prediction a name a name")
    assert shown.endswith("20.0%, …>")
    assert len(shown) < 200


def test_to_dict_is_what_json_takes(predicted):
    _, prediction, _ = predicted
    document = json.loads(json.dumps(prediction.to_dict(), allow_nan=False))
    assert [label["name"] for label in document["labels"]] == [label.name for label in prediction.labels]
    assert document["timing"]["batch"] == 1
    assert [tuple(positions) for positions in document["kept"]] == list(prediction.kept)


def test_images_by_path_and_as_array_have_equal_predictions(predicted):
    path, by_path, by_array = predicted
    assert (by_path.path, by_array.path) == (str(path), None)
    assert by_path.labels == by_array.labels


def test_plot_shows_the_image_the_kept_patches_and_the_classes(predicted):
    _, by_path, by_array = predicted
    plotted = by_path.plot()
    np.testing.assert_array_equal(np.asarray(plotted), np.asarray(by_array.plot(PICTURE)))
    without = replace(by_path, kept=None, sides=()).plot()
    assert plotted.width > without.width  # one tile for each selection
    one = replace(by_path, labels=by_path.labels[:1]).plot()
    assert one.size == plotted.size
    assert (np.asarray(one) != np.asarray(plotted)).any()


def test_plot_shows_a_selection_on_its_own_grid():
    """As of Evo-LeViT, whose later selections choose among every other row and column of patches."""
    outputs = {
        "logits": np.zeros((1, 3), np.float32),
        "selected_0": np.array([[0, 10]]),
        "scores_0": np.zeros((1, 4), np.float32),
    }
    black = np.zeros((64, 64, 3), np.uint8)
    (prediction,) = predictions_of(outputs, ModelInfo("fake", 64, 16, 3, "layer", (0.5,)), 3, [0.0], 0.0)
    assert prediction.kept == ((0, 10),) and prediction.sides == (2,)
    shown = np.asarray(prediction.plot(black))
    tile = shown[MARGIN + HEADING :, MARGIN + 192 + GAP :][:192, :192]  # the second one, next to the whole image
    dark = tile[48::96, 48::96].sum(axis=2) == 0  # the middles of its four quarters
    assert dark.tolist() == [[True, False], [False, True]]


def test_selections_are_in_their_order():
    outputs = {f"selected_{index}": np.array([[index]]) for index in (10, 1, 0, *range(2, 10))}
    outputs["logits"] = np.zeros((1, 3), np.float32)
    (prediction,) = predictions_of(outputs, ModelInfo("fake", 64, 16, 3, "layer", (0.5,)), 3, [0.0], 0.0)
    assert prediction.kept == tuple((index,) for index in range(11))


def test_plot_shows_each_class_on_one_line(predicted):
    _, prediction, _ = predicted
    first, *others = prediction.labels
    shown = [
        np.asarray(replace(prediction, labels=(replace(first, name=name), *others)).plot())
        for name in ("a\x1b\nb", "a\\x1b\\nb", "a")
    ]
    np.testing.assert_array_equal(shown[0], shown[1])
    assert (shown[0] != shown[2]).any()


def test_plot_without_the_image_is_refused(predicted):
    _, _, by_array = predicted
    with pytest.raises(UsageError, match=r"not given as a path.*: plot\(image\)"):
        by_array.plot()


def test_notebook_shows_the_plot_while_the_image_is_there(predicted, tmp_path):
    _, by_path, by_array = predicted
    shown = Image.open(io.BytesIO(by_path._repr_png_()))
    np.testing.assert_array_equal(np.asarray(shown), np.asarray(by_path.plot()))
    assert by_array._repr_png_() is None
    gone = replace(by_path, path=str(tmp_path / "gone.png"))
    assert gone._repr_png_() is None
