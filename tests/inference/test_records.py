from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

import evodeploy
from evodeploy.errors import UsageError
from evodeploy.inference.records import Label, Prediction, Timing

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
    without = Prediction(by_path.labels, by_path.timing, None, by_path.path, by_path.info).plot()
    assert plotted.width > without.width  # one tile for each selection
    one = Prediction(by_path.labels[:1], by_path.timing, by_path.kept, by_path.path, by_path.info).plot()
    assert one.size == plotted.size
    assert (np.asarray(one) != np.asarray(plotted)).any()


def test_plot_without_the_image_is_refused(predicted):
    _, _, by_array = predicted
    with pytest.raises(UsageError, match=r"not given as a path.*: plot\(image\)"):
        by_array.plot()


def test_notebook_shows_the_plot_while_the_image_is_there(predicted, tmp_path):
    _, by_path, by_array = predicted
    shown = Image.open(io.BytesIO(by_path._repr_png_()))
    np.testing.assert_array_equal(np.asarray(shown), np.asarray(by_path.plot()))
    assert by_array._repr_png_() is None
    gone = Prediction(by_path.labels, by_path.timing, by_path.kept, str(tmp_path / "gone.png"), by_path.info)
    assert gone._repr_png_() is None
