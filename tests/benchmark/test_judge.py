from __future__ import annotations

import numpy as np
import pytest

from evodeploy.benchmark.judge import judged

LOGITS = np.random.default_rng(0).standard_normal((16, 10)).astype(np.float32)


def test_rounding_passes_and_its_size_depends_on_the_precision():
    rounded = LOGITS * (1 + 1e-3)
    assert not judged(LOGITS, rounded, "fp32", tf32=False, classifies=True).correct
    assert judged(LOGITS, rounded, "fp32", tf32=True, classifies=True).correct
    verdict = judged(LOGITS, rounded, "bf16", tf32=False, classifies=True)
    assert verdict.correct
    assert verdict.error < 1e-3
    assert verdict.top1 == 1.0
    assert judged(LOGITS, rounded, "bf16", tf32=False, classifies=False).top1 is None


@pytest.mark.parametrize(("precision", "moved", "correct"), [("fp32", 1, False), ("bf16", 4, True), ("bf16", 5, False)])
def test_reduced_precision_may_move_the_selection_of_a_few_images(precision, moved, correct):
    got = LOGITS.copy()
    got[:moved] = -got[:moved]
    verdict = judged(LOGITS, got, precision, tf32=False, classifies=True)
    assert verdict.correct == correct
    assert verdict.deviating == moved / 16


@pytest.mark.parametrize(("precision", "moved", "correct"), [("fp32", 1, False), ("bf16", 8, True), ("bf16", 9, False)])
def test_the_median_image_decides_where_tokens_are_merged(precision, moved, correct):
    got = LOGITS.copy()
    got[:moved] = -got[:moved]
    assert judged(LOGITS, got, precision, tf32=False, classifies=True, merges=True).correct == correct


def test_numbers_that_are_none_and_other_shapes_are_wrong():
    assert not judged(LOGITS, np.full_like(LOGITS, np.nan), "bf16", tf32=False, classifies=True).correct
    verdict = judged(LOGITS, LOGITS[:, :5], "bf16", tf32=False, classifies=True)
    assert not verdict.correct
    assert str(verdict) == "its output has shape (16, 5), expected (16, 10)"
