from __future__ import annotations

import numpy as np
import pytest
from fake_engines import FakeEngine

from evodeploy.compare.parity import FP32_TOLERANCE, LOOSEST, MULTIPLE, Expected, compare, expect, joined
from evodeploy.engines.torch_network import torch_engine
from evodeploy.specs import EngineOptions, ModelInfo

INFO = ModelInfo("fake", 8, 4, 3, "stage", (0.5,))
IMAGES = np.zeros((2, 3, 8, 8), np.float32)
LOGITS = np.array([[1.0, 2, 3], [4, -10, 6]])
KEPT = np.array([[3, 1], [0, 2]])
SCORES = np.array([[0.1, 0.3, 0.2, 0.4], [0.4, 0.1, 0.3, 0.2]])


def expected(losses=(1e-7, 1e-7), scores=SCORES, score_losses=(1e-7, 1e-7)):
    outputs = {"logits": LOGITS, "selected_0": KEPT, "scores_0": scores}
    return Expected(outputs, {"logits": np.array(losses), "scores_0": np.array(score_losses)})


def checks(ours, **got):
    return list(compare(ours, FakeEngine(INFO, compute=lambda images: got), IMAGES))


def test_the_error_is_relative_to_the_largest_magnitude_of_its_image():
    (check,) = checks(expected(), logits=LOGITS + np.array([[0, 0, 0], [0, 0.0005, 0]]))
    assert check.passed
    assert abs(check.error - 5e-5) < 1e-9
    (check,) = checks(expected(), logits=LOGITS + np.array([[0, 0, 0.0005], [0, 0, 0]]))
    assert not check.passed
    assert "worst at image 0" in check.detail


def test_the_limit_of_an_image_is_a_multiple_of_its_float32_error():
    ours = expected(losses=(1e-7, 1e-4))
    assert ours.limits("logits").tolist() == [FP32_TOLERANCE, MULTIPLE * 1e-4]
    off = 7e-4 * np.abs(LOGITS).max(axis=1)
    (check,) = checks(ours, logits=LOGITS + np.array([[0, 0, 0], [0, off[1], 0]]))
    assert check.passed
    assert "limit 8e-04 because float32 itself loses 1.0e-04 (badly conditioned)" in check.detail
    (check,) = checks(ours, logits=LOGITS + np.array([[0, 0, off[0]], [0, 0, 0]]))
    assert not check.passed
    assert "badly conditioned" not in check.detail


def test_images_with_large_float32_errors_are_left_out_but_never_all_of_them():
    much = LOOSEST / MULTIPLE * 1.01
    (check,) = checks(expected(losses=(1e-7, much)), logits=LOGITS + np.array([[0, 0, 0], [0, 5, 0]]))
    assert check.passed
    assert "1 of 2 images cannot be compared" in check.detail
    (check,) = checks(expected(losses=(much, much)), logits=LOGITS)
    assert not check.passed
    assert "no image can be compared" in check.detail


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_is_not_finite_never_passes(wrong):
    for losses in ((1e-7, 1e-7), (1e-7, np.inf)):
        (check,) = checks(expected(losses), logits=LOGITS * [[1], [wrong]])
        assert not check.passed


def test_errors_of_scores_are_relative_to_themselves_or_to_the_last_one_kept():
    (check,) = checks(expected(), scores_0=SCORES + np.array([[0, 0, 0, 3e-5], [0, 0, 0, 0]]))
    assert check.passed
    assert check.error == pytest.approx(3e-5 / 0.4)
    (check,) = checks(expected(), scores_0=SCORES + np.array([[2e-5, 0, 0, 0], [0, 0, 0, 0]]))
    assert check.passed
    assert check.error == pytest.approx(2e-5 / 0.3)
    (check,) = checks(expected(), scores_0=SCORES + np.array([[0, 4e-5, 0, 0], [0, 0, 0, 0]]))
    assert not check.passed


def test_selections_are_sets():
    (check,) = checks(expected(), selected_0=KEPT[:, ::-1])
    assert check.passed
    (check,) = checks(expected(), selected_0=np.array([[3, 1], [0, 3]]))
    assert not check.passed
    assert check.error == 0.5
    assert "image 1: 1 others for 1" in check.detail


def test_near_ties_are_left_out_with_their_consequences():
    tied = np.array([[0.1, 0.3, 0.2, 0.4], [0.4, 0.1, 0.3, 0.3 * (1 - 5e-5)]])
    for ours in (expected(scores=tied), expected(score_losses=(1e-7, 0.05))):
        other = {"selected_0": np.array([[3, 1], [0, 3]]), "logits": LOGITS + np.array([[0, 0, 0], [0, 1, 0]])}
        found = checks(ours, **other)
        assert all(check.passed and "1 of 2 images cannot be compared" in check.detail for check in found), found
        assert np.isinf(ours.looseness()).tolist() == [False, True]
    assert not any(check.passed for check in checks(expected(), **other))


def test_another_shape_fails():
    for name, value in {"logits": LOGITS, "selected_0": KEPT}.items():
        (check,) = checks(expected(), **{name: value[:, :1]})
        assert not check.passed
        assert "shape (2, 1)" in check.detail


def test_ranked_classes_count_where_their_probabilities_do_not_tie():
    outputs = {
        "probabilities": np.array([[0.5, 0.2, 0.2], [0.4, 0.4, 0.1]]),
        "classes": np.array([[1, 2, 3], [0, 1, 2]]),
    }
    ours = Expected(outputs, {"probabilities": np.array([1e-7, 1e-7])}, spare_ranks=1)
    (check,) = checks(ours, classes=np.array([[1, 3], [1, 0]]))  # the first image's last class ties with the next one
    assert check.passed
    (check,) = checks(ours, probabilities=outputs["probabilities"][:, :2])
    assert check.passed
    (check,) = checks(ours, classes=np.array([[2, 1], [0, 1]]))
    assert (check.passed, check.detail) == (False, "other classes in 1 images")
    loose = Expected(outputs, {"probabilities": np.array([1.3e-3, 1e-7])}, spare_ranks=1)
    (check,) = checks(loose, classes=np.array([[2, 1], [0, 1]]))
    assert "1 of 2 images cannot be compared" in check.detail


def test_the_only_rank_is_judged():
    outputs = {"probabilities": np.array([[0.5, 0.2]]), "classes": np.array([[1, 2]])}
    ours = Expected(outputs, {"probabilities": np.array([1e-7])}, spare_ranks=1)
    (check,) = checks(ours, classes=np.array([[3]]))
    assert not check.passed


def test_the_reference_runs_in_float64_and_in_float32_three_times(small, small_images):
    seen, answers = [], []

    def observed(images, keep):
        seen.append(images)
        answers.append(run(images, keep))
        return answers[-1]

    with torch_engine(small, tokens=True, options=EngineOptions(device="cpu")) as reference:
        run = reference.run
        reference.run = observed
        found = expect(reference, small_images)
        exact = reference.run_in_float64(small_images)
    assert {name: value.dtype.name for name, value in exact.items()} == {
        "logits": "float64", "selected_0": "int64", "selected_1": "int64", "scores_0": "float64", "scores_1": "float64",
    }  # fmt: skip
    assert [np.array_equal(images, small_images) for images in seen] == [True, False, False]
    assert all(np.abs(images - small_images).max() < 1e-6 for images in seen)
    errors = [np.abs(each["logits"] - exact["logits"]).max(axis=1) for each in answers]
    scale = np.abs(exact["logits"]).max(axis=1)
    np.testing.assert_allclose(found.losses["logits"], np.max(errors, axis=0) / scale)
    assert (found.losses["logits"] > 0).all()
    parts = joined([found[:1], found[1:]])
    assert all(np.array_equal(parts.outputs[name], value) for name, value in found.outputs.items())
    assert all(np.array_equal(parts.losses[name], value) for name, value in found.losses.items())


def test_owners_are_compared_if_they_are_clear():
    ours = expected()
    owners = np.array([[1, 1, 3, 3], [0, 0, 2, 2]])
    ours.outputs.update(owner_0=owners, owner_margin_0=np.array([[0.3, 2, 1e-6, 2], [2, 0.3, 2, 0.2]]))
    ours.losses.update(owner_margin_0=np.array([1e-7, 1e-7]))
    assert ours.comparable("owner_0").tolist() == ours.comparable("logits").tolist() == [False, True]
    assert ours.comparable("scores_0").tolist() == ours.comparable("selected_0").tolist() == [True, True]
    assert ours.comparable("owner_margin_0").all()
    (check,) = checks(ours, owner_0=np.array([[1, 1, 1, 3], [0, 0, 2, 2]]))
    assert check.passed
    assert "1 of 2 images cannot be compared" in check.detail
    (check,) = checks(ours, owner_0=np.array([[1, 1, 3, 3], [0, 2, 2, 2]]))
    assert not check.passed
    assert "image 1: 1 with another owner" in check.detail
