from __future__ import annotations

import numpy as np
import pytest
import torch
from fake_engines import FakeEngine, logits_by_first_pixel

from evodeploy.arrays import as_array
from evodeploy.errors import InputError
from evodeploy.images import open_image
from evodeploy.inference.predictor import Predictor
from evodeploy.specs import ModelInfo

INFO = ModelInfo("fake", 8, 4, 3, "stage", (0.5,), class_names=("ant", "bee", "cat"))
PICTURES = np.random.default_rng(3).integers(0, 256, (4, 20, 12, 3), np.uint8)


def test_reads_a_tensor_without_a_copy():
    tensor = torch.arange(6.0).reshape(2, 3)
    array = as_array(tensor)
    tensor[0, 0] = 7
    assert array.tolist() == [[7, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    "tensor",
    [torch.ones(2, requires_grad=True), torch.ones(2, dtype=torch.bfloat16), torch.ones(2, device="meta")],
    ids=["gradients", "bfloat16", "meta"],
)
def test_refuses_a_tensor_that_numpy_cannot_read(tensor):
    with pytest.raises(InputError, match="NumPy cannot read this Tensor .*: expected a tensor in host memory"):
        as_array(tensor)


def test_predicts_a_batch_of_tensors_as_its_images_one_by_one():
    channels_first = torch.from_numpy(PICTURES).permute(0, 3, 1, 2)
    with Predictor(FakeEngine(INFO, compute=logits_by_first_pixel)) as predictor:
        expected = [predictor.predict(picture).labels for picture in PICTURES]
        assert len({labels[0].probability for labels in expected}) > 1
        for batch in (PICTURES, torch.from_numpy(PICTURES), channels_first, channels_first.contiguous(),
                      channels_first.double() / 255):  # fmt: skip
            assert [prediction.labels for prediction in predictor.predict(batch)] == expected
        assert [prediction.labels for prediction in predictor.stream(channels_first)] == expected
        assert predictor.predict(channels_first[1]).labels == expected[1]


def test_runs_an_engine_on_a_tensor():
    prepared = torch.rand(3, 3, 8, 8)
    with FakeEngine(INFO, compute=logits_by_first_pixel) as engine:
        np.testing.assert_array_equal(engine.run(prepared)["logits"], engine.run(prepared.numpy())["logits"])
        assert len(list(engine.run_many([prepared, prepared]))) == 2
        with pytest.raises(InputError, match="float64, expected float32"):
            engine.run(prepared.double())
    with Predictor(FakeEngine(INFO, compute=logits_by_first_pixel)) as predictor:
        assert predictor.predict_logits(prepared).shape == (3, 3)


def test_an_image_that_is_refused_is_named_by_the_shape_it_has():
    with pytest.raises(InputError, match=r"an image array is float32 \(3, 5, 7\), values from 2 to 2, expected"):
        open_image(torch.full((3, 5, 7), 2.0))
    with pytest.raises(InputError, match=r"an image array is int64 \(3, 5, 7\), expected"):
        open_image(torch.ones(3, 5, 7, dtype=torch.int64))
    with pytest.raises(InputError, match=r"an image array is bool \(5, 7, 3\), expected"):
        open_image(torch.ones(5, 7, 3, dtype=torch.bool))


def test_reads_a_view_and_an_empty_batch():
    picture = torch.arange(2 * 4 * 6 * 3, dtype=torch.uint8).reshape(2, 4, 6, 3)[1, ::2, ::3]
    np.testing.assert_array_equal(np.asarray(open_image(picture)), picture.numpy())
    with Predictor(FakeEngine(INFO, compute=logits_by_first_pixel)) as predictor:
        assert predictor.predict(torch.zeros(0, 3, 8, 8)) == predictor.predict(np.zeros((0, 8, 8, 3))) == []


def test_refuses_what_is_no_image():
    with pytest.raises(InputError, match="an image is of type list, expected a path, bytes, a Pillow image"):
        open_image([1, 2])
