"""The search by stage, on networks whose accuracy and work are formulas."""

from __future__ import annotations

import itertools
import math

import pytest

from evodeploy.sweeper.search import descent

RATIOS = (0.4, 1.0, 0.7)


def work(keep):
    return 10 + sum(keep)


def test_the_stage_that_loses_least_is_lowered_first():
    def score(keep):
        first, second = keep
        return 1 - 0.3 * (1 - first) ** 2 - 0.1 * (1 - second)

    path = descent(RATIOS, 2, score, work)
    assert path == [(1.0, 1.0), (0.7, 1.0), (0.7, 0.7), (0.7, 0.4), (0.4, 0.4)]


def test_what_a_step_loses_is_weighed_against_what_it_saves():
    costs = {1.0: 0.0, 0.4: 1.0}
    path = descent(
        (1.0, 0.4), 2, lambda keep: 1 - 0.2 * costs[keep[0]] - 0.1 * costs[keep[1]], lambda keep: 9 * keep[0] + keep[1]
    )
    assert path[1] == (0.4, 1.0)  # twice the loss, nine times the saving


def test_it_stops_at_the_accuracy_asked_for():
    path = descent(RATIOS, 2, lambda keep: min(keep), work, least=0.7)
    assert path[-1] == (0.7, 0.7)
    assert all(min(keep) >= 0.7 for keep in path)


def test_a_stage_that_saves_nothing_is_left_alone_and_silence_ends_it():
    assert descent(RATIOS, 2, lambda keep: 1.0, lambda keep: keep[1]) == [(1.0, 1.0), (1.0, 0.7), (1.0, 0.4)]
    assert descent(RATIOS, 2, lambda keep: None, work) == [(1.0, 1.0)]
    assert descent(RATIOS, 2, lambda keep: None if min(keep) < 0.7 else 1.0, work)[-1] == (0.7, 1.0)


def test_ratios_that_cannot_be_are_gone_round():
    path = descent(RATIOS, 2, lambda keep: -math.inf if keep[0] < 1 else 1.0, work)
    assert path == [(1.0, 1.0), (1.0, 0.7), (1.0, 0.4)]


@pytest.mark.parametrize("stages", [1, 3])
def test_it_asks_for_far_fewer_scores_than_the_grid_has(stages):
    ratios, asked = [0.1 * n for n in range(3, 11)], set()

    def score(keep):
        asked.add(keep)
        return sum(keep)

    path = descent(ratios, stages, score, work)
    assert path[0] == (1.0,) * stages
    assert path[-1] == (min(ratios),) * stages
    assert len(path) == 1 + stages * (len(ratios) - 1)
    assert all(sum(a != b for a, b in itertools.zip_longest(*pair)) == 1 for pair in itertools.pairwise(path))
    assert len(asked) <= len(ratios) * stages**2
