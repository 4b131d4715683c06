from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from evodeploy.compare.agreement import agreement
from evodeploy.compare.selections import on_grid
from evodeploy.compare.tolerance import Tolerance
from evodeploy.models.evo_levit_config import EvoLeViTConfig

TOLERANCE = Tolerance(logits=1e-2, score=1e-2)
LOGITS = np.float32([[1, 5, 2], [4, -10, 6]])
SCORES = np.float32([[0.4, 0.3, 0.2, 0.1], [0.4, 0.1, 0.201, 0.2]])
KEPT = np.array([[0, 1], [0, 2]])


def judge(expected=None, got=None, **changes):
    reference = {"logits": LOGITS, "selected_0": KEPT, "scores_0": SCORES} | (expected or {})
    candidate = reference | (got or {})
    return agreement(reference, candidate, dataclasses.replace(TOLERANCE, **changes), grid=2)


def test_the_same_outputs_agree_wholly():
    verdict = judge()
    assert verdict.passed
    assert (verdict.logits.max_error, verdict.logits.top1, verdict.logits.unmoved) == (0.0, 1.0, 2)
    assert (verdict.logits.regrouped, verdict.logits.median_error, verdict.logits.median_limit) == (0, 0.0, 0.0)
    (selection,) = verdict.selections
    assert (selection.identical, selection.jaccard, selection.agreement) == (2, 1.0, 1.0)
    assert selection.largest_gap == 0.0
    document = json.loads(json.dumps(verdict.to_dict()))
    assert (document["passed"], document["selections"][0]["identical"]) == (True, 2)


def test_the_order_of_kept_tokens_does_not_matter():
    assert judge(got={"selected_0": KEPT[:, ::-1]}).selections[0].identical == 2


def test_a_near_tie_is_no_error_and_its_image_is_not_held_to_the_limit():
    got = {"selected_0": np.array([[0, 1], [0, 3]]), "logits": LOGITS + np.float32([[0, 0, 0], [0, 0, 1]])}
    verdict = judge(got=got)
    (selection,) = verdict.selections
    assert (selection.near_ties, selection.errors, selection.identical) == (1, 0, 1)
    assert selection.agreement == 0.75
    assert selection.jaccard == pytest.approx((1 + 1 / 3) / 2)
    assert selection.largest_gap == pytest.approx(0.0005 / 0.2005, rel=1e-3)
    assert verdict.logits.max_error == pytest.approx(0.1)
    assert verdict.logits.max_error_unmoved == 0.0
    assert verdict.passed


def test_a_difference_far_from_the_threshold_is_an_error():
    verdict = judge(got={"selected_0": np.array([[0, 3], [0, 2]])})
    assert verdict.selections[0].errors == 1
    assert verdict.selections[0].largest_gap == pytest.approx(0.6)
    assert not verdict.passed


def test_without_scores_every_difference_is_an_error():
    expected = {"logits": LOGITS, "selected_0": KEPT}
    verdict = agreement(expected, expected | {"selected_0": np.array([[0, 1], [0, 3]])}, TOLERANCE, 2)
    assert verdict.selections[0].errors == 1
    assert verdict.selections[0].largest_gap is None


def test_what_follows_a_difference_in_the_same_image_is_a_consequence():
    later = {"selected_1": KEPT, "scores_1": SCORES}
    got = {"selected_0": np.array([[0, 1], [0, 3]]), "selected_1": np.array([[0, 1], [1, 3]])}
    verdict = judge(expected=later, got=got)
    assert (verdict.selections[1].consequences, verdict.selections[1].errors) == (2, 0)
    assert verdict.passed
    after = judge(expected=later, got=got | {"selected_0": np.array([[0, 2], [0, 2]])})
    assert (after.selections[0].errors, after.selections[1].consequences, after.selections[1].errors) == (1, 0, 1)
    alone = judge(expected=later, got={"selected_1": np.array([[0, 1], [1, 3]])})
    assert alone.selections[1].consequences == 0
    assert not alone.passed


def test_positions_of_a_later_grid_are_found_in_its_scores():
    # A 4x4 grid and the 2x2 grid of its even rows and columns, whose tokens are at positions 0, 2, 8 and 10.
    expected = {"logits": LOGITS, "selected_0": np.array([[0, 8], [0, 8]]), "scores_0": SCORES[[1, 1]]}
    near = agreement(expected, expected | {"selected_0": np.array([[0, 8], [0, 10]])}, TOLERANCE, 4)
    assert (near.selections[0].near_ties, near.selections[0].errors) == (1, 0)
    far = agreement(expected, expected | {"selected_0": np.array([[0, 8], [0, 2]])}, TOLERANCE, 4)
    assert (far.selections[0].near_ties, far.selections[0].errors) == (0, 1)


@pytest.mark.parametrize("image_size", [16, 64, 80, 96, 112, 144, 160, 224, 384])
def test_positions_of_every_grid_are_those_of_its_own_tokens(image_size):
    config = EvoLeViTConfig("four", (8,) * 4, (1,) * 4, (1,) * 4, 8, image_size, keep_ratios=(1.0,) * 2)
    for stage, side in enumerate(config.grids):
        assert on_grid(np.array(config.origins(stage)), config.grid, side).tolist() == [*range(side**2)]


@pytest.mark.parametrize("longer", ["expected", "got"])
def test_a_selection_that_keeps_every_token_is_ignored_if_only_one_side_makes_it(longer):
    margins = np.float32([[2, 2, 1e-3, 0.3], [2, 0.4, 2, 0.2]])
    second = {"selected": KEPT, "scores": SCORES, "owner": np.array([[0, 1, 0, 1], [0, 0, 2, 2]])}
    second["owner_margin"] = margins
    everything = {"selected": np.array([[0, 1, 2, 3]] * 2), "scores": SCORES, "owner": np.array([[0, 1, 2, 3]] * 2)}
    everything["owner_margin"] = 2 * np.ones((2, 4), np.float32)
    static = {"logits": LOGITS} | {f"{kind}_0": value for kind, value in second.items()}
    elastic = {"logits": LOGITS} | {f"{kind}_0": value for kind, value in everything.items()}
    elastic |= {f"{kind}_1": value for kind, value in second.items()}
    moved = np.array([[0, 1], [0, 3]])  # a near tie only with the limits or the scores of this selection
    expected, got = (elastic, static) if longer == "expected" else (static, elastic)
    verdict = agreement(expected, got, TOLERANCE, 2)
    assert verdict.passed
    assert [(each.name, each.identical) for each in verdict.selections] == [("selected_0", 2), ("owner_0", 2)]
    number = 1 if longer == "expected" else 0
    got = got | {f"selected_{1 - number}": moved}
    strict = dataclasses.replace(TOLERANCE, score=1e-4)
    assert not agreement(expected, got, strict, 2).passed
    assert agreement(expected, got, strict, 2, {f"scores_{number}": np.array([0.0, 1e-2])}).passed


def test_logits_out_of_tolerance_or_not_a_number_fail():
    assert not judge(got={"logits": LOGITS + 0.5}).passed
    assert judge(got={"logits": LOGITS + 0.5}, logits=0.1).passed
    assert not judge(got={"logits": LOGITS * np.nan}).passed


def test_an_absolute_tolerance_comes_on_top_of_the_relative_one():
    tolerance = Tolerance(logits=0.01, score=0.01, absolute=0.5)
    verdict = agreement({"logits": LOGITS}, {"logits": LOGITS + 0.55}, tolerance, grid=2)
    assert verdict.logits.limit == pytest.approx(0.01 + 0.5 / np.abs(LOGITS).max())
    assert verdict.passed == (0.5 + 0.01 * np.abs(LOGITS).max() >= 0.55)
    assert not agreement({"logits": LOGITS}, {"logits": LOGITS + 0.7}, tolerance, grid=2).passed


def test_if_every_image_has_other_tokens_the_median_image_decides():
    scores = SCORES[[1, 1]]
    expected = {"logits": LOGITS, "selected_0": KEPT[[1, 1]], "scores_0": scores}
    near = expected | {"selected_0": np.array([[0, 3], [0, 3]])}
    for got, error in ((LOGITS + 0.4, 0.04), (LOGITS + 0.6, 0.06), (LOGITS[:, ::-1], 0.15)):
        verdict = agreement(expected, near | {"logits": got}, TOLERANCE, 2)
        assert (verdict.logits.unmoved, verdict.logits.max_error_unmoved, verdict.logits.limit) == (0, 0.0, 0.01)
        assert (verdict.logits.median_error, verdict.logits.median_limit) == (pytest.approx(error), 0.05)
        assert verdict.selections[0].errors == 0
        assert verdict.passed == (error < 0.05)
        assert "median of all images, whose tokens differ" in str(verdict)


def test_ranked_probabilities_are_compared_by_class():
    expected = {"probabilities": np.float32([[0.6, 0.2, 0.195]]), "classes": np.array([[4, 7, 1]])}

    def judged(probabilities, classes):
        got = {"probabilities": np.float32([probabilities]), "classes": np.array([classes])}
        return agreement(expected, got, TOLERANCE, 2)

    assert judged([0.6, 0.2, 0.195], [4, 7, 1]).logits.max_error == 0
    assert judged([0.6, 0.2, 0.195], [4, 1, 7]).passed  # two classes that nearly tie
    assert judged([0.6, 0.2, 0.196], [4, 7, 2]).passed  # so may the last one and the first that is not among them
    wrong = judged([0.6, 0.2, 0.195], [7, 4, 1])
    assert (wrong.passed, wrong.logits.top1) == (False, 0.0)
    assert wrong.logits.max_error == pytest.approx(0.4 / 0.6)
    assert not judged([0.6, 0.2, 0.195], [3, 2, 0]).passed


def test_logits_that_are_all_zero_have_a_cosine_of_zero():
    zeros = {"logits": np.zeros((2, 3), np.float32)}
    logits = agreement(zeros, zeros, TOLERANCE, 2).logits
    assert (logits.min_cosine, logits.scale, logits.max_error, logits.passed) == (0.0, 1.0, 0.0, True)


def test_features_have_no_top1():
    assert agreement({"features": LOGITS}, {"features": LOGITS}, Tolerance(0.01, 0.01), grid=2).logits.top1 is None


def test_top1_and_cosine_are_those_of_each_image():
    verdict = judge(got={"logits": np.float32([[5, 1, 2], [4, -10, 6]])})
    assert verdict.logits.top1 == 0.5
    assert verdict.logits.min_cosine == pytest.approx((5 + 5 + 4) / 30)
    assert verdict.logits.median_cosine == pytest.approx((1 + 14 / 30) / 2)


def test_an_image_with_a_large_float32_error_has_a_wider_limit():
    reference = {"logits": LOGITS, "selected_0": KEPT, "scores_0": SCORES}
    off = reference | {"logits": LOGITS + np.float32([[0, 0, 0], [0, 0, 0.5]])}
    assert not agreement(reference, off, TOLERANCE, 2).passed
    wide = {"logits": np.array([0, 0.06]), "scores_0": np.array([0.0, 0.6])}
    verdict = agreement(reference, off, TOLERANCE, 2, wide)
    assert verdict.passed
    assert (verdict.logits.max_error_unmoved, verdict.logits.limit) == pytest.approx((0.05, 0.06))
    other = {"logits": np.array([0.06, 0.0])}
    assert not agreement(reference, off, TOLERANCE, 2, other).passed
    far = reference | {"selected_0": np.array([[0, 1], [0, 1]])}
    assert not agreement(reference, far, TOLERANCE, 2).passed
    assert agreement(reference, far, TOLERANCE, 2, wide).passed


def test_a_token_with_another_owner_is_a_near_tie_a_consequence_or_an_error():
    owners = np.array([[0, 1, 0, 1], [0, 0, 2, 2]])
    margins = np.float32([[2, 2, 1e-3, 0.3], [2, 0.4, 2, 0.2]])
    merging = {"owner_0": owners, "owner_margin_0": margins}
    near = judge(expected=merging, got={"owner_0": np.array([[0, 1, 1, 1], [0, 0, 2, 2]])})
    assert near.passed
    tokens = near.selections[1]
    assert (tokens.name, tokens.identical, tokens.near_ties, tokens.errors) == ("owner_0", 1, 1, 0)
    assert (tokens.jaccard, tokens.largest_gap) == (7 / 8, pytest.approx(1e-3))
    far = judge(expected=merging, got={"owner_0": np.array([[0, 1, 0, 0], [0, 0, 2, 2]])})
    assert not far.passed
    assert (far.selections[1].errors, far.selections[1].near_ties) == (1, 0)
    kept = {"selected_0": np.array([[0, 1], [0, 3]]), "owner_0": np.array([[0, 1, 0, 1], [0, 0, 3, 3]])}
    follows = judge(expected=merging, got=kept).selections[1]
    assert (follows.consequences, follows.errors) == (2, 0)


def test_the_median_image_decides_if_near_ties_found_other_owners():
    images = 5
    expected = {
        "logits": np.repeat(LOGITS[:1], images, axis=0),
        "selected_0": np.repeat(KEPT[:1], images, axis=0),
        "scores_0": np.repeat(SCORES[:1], images, axis=0),
        "owner_0": np.repeat([[0, 1, 0, 1]], images, axis=0),
        "owner_margin_0": np.full((images, 4), 1e-3, np.float32),
    }
    owners = expected["owner_0"].copy()
    owners[:3, 2] = 1
    unchanged = agreement(expected, expected, TOLERANCE, 2)
    assert (unchanged.logits.regrouped, unchanged.selections[1].largest_gap) == (0, 0.0)
    for off, passed in (([0, 1], True), ([0, 1, 2], False), ([3], False)):
        logits = expected["logits"].copy()
        logits[off, 1] *= 1.1
        verdict = agreement(expected, expected | {"owner_0": owners, "logits": logits}, TOLERANCE, 2)
        assert (verdict.logits.unmoved, verdict.logits.regrouped, verdict.passed) == (2, 3, passed)
        assert "median of the 5 images with the same tokens" in str(verdict)
    same = expected | {"logits": logits}
    assert agreement(expected, same, TOLERANCE, 2).logits.regrouped == 0
