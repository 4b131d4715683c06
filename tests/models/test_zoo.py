from __future__ import annotations

import pytest
from cases import SMALL

from evodeploy.errors import UsageError
from evodeploy.models.cost import cost_of
from evodeploy.models.zoo import ZOO, dense_twin, named, with_selection


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(UsageError, match="did you mean evo_deit_small_patch16_224"):
        named("evo_deit_smal_patch16_224")


@pytest.mark.parametrize(
    ("ratios", "message"),
    [
        ((0.0,), "keep ratio 0"),
        ((1.2,), "keep ratio 1.2"),
        ((0.001,), "keep ratio 0.001"),
        ((0.5,) * 3, "3 keep ratios"),
    ],
)
def test_keep_ratios_that_cannot_be_honoured_are_refused(ratios, message):
    with pytest.raises(UsageError, match=message):
        with_selection(SMALL, ratios)


def test_one_keep_ratio_applies_to_all_stages():
    assert with_selection(SMALL, (0.25,)).keep_ratios == (0.25, 0.25)


def test_tokens_per_block_at_384_pixels():
    assert ZOO["evo_deit_base_patch16_384"].tokens_per_block == (576,) * 4 + (288,) * 8


# DeiT publishes 5.7, 22.1 and 86.6 M parameters, and 1.3, 4.6 and 17.6 GFLOPs.
@pytest.mark.parametrize(
    ("name", "parameters", "dense_gflops"), [("tiny", 5.72e6, 1.25), ("small", 22.05e6, 4.6), ("base", 86.57e6, 17.56)]
)
def test_costs_are_those_that_the_literature_gives(name, parameters, dense_gflops):
    config = ZOO[f"evo_deit_{name}_patch16_224"]
    cost, dense = cost_of(config), cost_of(dense_twin(config))
    assert cost.parameters == pytest.approx(parameters, rel=0.001)
    assert dense.gflops == pytest.approx(dense_gflops, rel=0.01)
    assert 0.6 < cost.gflops / dense.gflops < 0.7
