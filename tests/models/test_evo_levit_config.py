import dataclasses

import pytest
from levit_cases import small

from evodeploy.errors import UsageError
from evodeploy.models.evo_levit_config import EVO_LEVIT
from evodeploy.models.zoo import ZOO, dense_twin, with_selection


def test_the_ten_variants_are_in_the_zoo():
    sizes = ("128S", "128", "192", "256", "384")
    names = {f"EvoLeViT_{size}{suffix}" for size in sizes for suffix in ("", "_384")}
    assert set(EVO_LEVIT) == names == {name for name in ZOO if name.startswith("EvoLeViT")}
    assert all(config.name == name for name, config in EVO_LEVIT.items())
    assert {config.image_size for name, config in EVO_LEVIT.items() if name.endswith("_384")} == {224, 384}
    assert EVO_LEVIT["EvoLeViT_384"].image_size == 224


def test_tokens_of_the_published_models():
    config = EVO_LEVIT["EvoLeViT_256_384"]
    assert config.grids == (24, 12, 6)
    assert config.stages == config.selecting_of() == (2, 4, 8)
    assert config.tokens_per_block == (576, 576, 288, 288, 72, 72, 72, 72, 18, 18, 18, 18)
    config = EVO_LEVIT["EvoLeViT_128S"]
    assert config.grids == (14, 7, 4)
    assert config.stages == config.selecting_of() == (2, 5)
    assert config.tokens_per_block == (196, 196, 24, 24, 24, 8, 8, 8, 8)
    assert config.scored_for(config.segments_of()) == {0, 1, 2, 3, 4}


def test_layer_mode_selects_before_every_block_but_the_first_two():
    config = with_selection(EVO_LEVIT["EvoLeViT_128S"], selection="layer")
    assert config.selecting_of() == (2, 3, 4, 5, 6, 7, 8)
    assert config.scored_for(config.segments_of()) == set(range(8))


def test_the_dense_twin_selects_and_scores_nothing():
    config = dense_twin(EVO_LEVIT["EvoLeViT_192"])
    assert config.selecting_of() == () and config.scored_for(config.segments_of()) == frozenset()
    assert config.tokens_per_block == (196,) * 4 + (49,) * 4 + (16,) * 4


def test_origins_are_every_second_row_and_column():
    assert small().origins(1) == (0, 2, 4, 6, 14, 16, 18, 20, 28, 30, 32, 34, 42, 44, 46, 48)
    assert small().origins(2) == (0, 4, 28, 32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keep_ratios": (0.5, 0.5)}, "2 keep ratios given, but small has 3"),
        ({"keep_ratios": (0.5, 0.0, 0.5)}, "keep ratio 0 "),
        ({"keep_ratios": (0.5, 1.2, 0.5)}, "keep ratio 1.2 "),
        ({"keep_ratios": (0.5, 0.5, 0.2)}, "keeps none of the 4 tokens"),
        ({"image_size": 100}, "multiples of 16, not 100"),
        ({"widths": (36, 48, 64)}, "multiples of its key width 8"),
        ({"depths": (3, 2)}, "for every stage"),
        ({"depths": (3, 0, 2)}, "at least one block"),
    ],
)
def test_what_cannot_be_built_is_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(small(), **changes)
