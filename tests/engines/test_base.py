from __future__ import annotations

import numpy as np
import pytest

from evodeploy.engines.fake import FakeEngine, brightness_logits
from evodeploy.errors import InputError, RuntimeFailedError, UsageError
from evodeploy.specs import BatchRange, ModelInfo

INFO = ModelInfo("fake", image_size=8, patch_size=4, num_classes=3, selection="stage", keep_ratios=(0.5,))
GOOD = np.zeros((2, 3, 8, 8), np.float32)


@pytest.fixture
def engine():
    with FakeEngine(INFO, BatchRange(1, 4)) as engine:
        yield engine


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (GOOD.astype(np.float64), "input 'images' is float64, expected float32"),
        (GOOD[:, :, :4], r"shape \(2, 3, 4, 8\), expected \(batch, 3, 8, 8\)"),
        (GOOD[0], r"shape \(3, 8, 8\)"),
        (GOOD[:0], "batch of 0 images is outside this engine's range of 1 to 4"),
        (np.repeat(GOOD, 3, axis=0), "batch of 6 images"),
        ([[1.0]], "is a list, expected a NumPy array"),
    ],
)
def test_input_that_does_not_fit_is_refused_and_the_next_call_works(engine, images, message):
    with pytest.raises(InputError, match=message):
        engine.run(images)
    assert engine.calls == 0
    assert engine.run(GOOD)["logits"].shape == (2, 3)


def test_what_a_runtime_raises_is_translated_and_chained(engine):
    def broken(images):
        raise RuntimeError("out of luck\nwith a long trace")

    with FakeEngine(INFO, compute=broken) as engine:
        with pytest.raises(RuntimeFailedError, match="fake failed at batch 2: out of luck$") as raised:
            engine.run(GOOD)
        assert isinstance(raised.value.__cause__, RuntimeError)


def test_use_after_close_is_refused_and_closing_twice_is_harmless(engine):
    engine.close()
    engine.close()
    with pytest.raises(UsageError, match="closed"):
        engine.run(GOOD)


def test_views_reach_the_runtime_contiguous():
    seen = []
    with FakeEngine(
        INFO, compute=lambda images: seen.append(images) or {"logits": brightness_logits(images, 3)}
    ) as engine:
        engine.run(np.zeros((8, 8, 3, 2), np.float32).transpose(3, 2, 0, 1))
    assert seen[0].flags.c_contiguous


@pytest.mark.parametrize(
    ("batch", "text", "inside", "outside"),
    [(BatchRange(1, 8), "1 to 8", 8, 9), (BatchRange(4, 4), "4", 4, 3), (BatchRange(2), "2 or more", 10**6, 1)],
)
def test_batch_ranges_include_both_ends(batch, text, inside, outside):
    assert str(batch) == text
    assert inside in batch
    assert outside not in batch
