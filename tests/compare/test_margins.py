from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from cases import SMALL
from fake_engines import FakeEngine
from PIL import Image

import evodeploy
from evodeploy.compare.margins import _ratio, margins_on
from evodeploy.compare.selections import selections_from
from evodeploy.elastic import ElasticStage
from evodeploy.engines.base import run_all
from evodeploy.engines.opener import open_engine
from evodeploy.engines.torch_network import torch_engine
from evodeploy.errors import RuntimeFailedError, UsageError
from evodeploy.models.loaded import reconfigured, with_elastic
from evodeploy.models.zoo import with_selection
from evodeploy.preprocess import as_input, random_pictures
from evodeploy.specs import ModelInfo, TensorSpec

INFO = ModelInfo("m", 8, 2, 10, "stage", (0.5,), stages=(4,))
SCORES = [0.06, 0.0, 0.4, 0.0, 0.25, 0.0, 0.1, 0.0, 0.0, 0.02, 0.0, 0.02, 0.0, 0.0, 0.15, 0.0]  # of 4 x 4 patches


class Chosen(FakeEngine):
    """An engine that outputs the given scores, and the 4 tokens with the highest, for every image."""

    def __init__(self, scores):
        outputs = {"selected_0": np.argsort(scores)[:-5:-1], "scores_0": np.float32(scores)}
        super().__init__(INFO, compute=lambda images: {k: np.tile(v, (len(images), 1)) for k, v in outputs.items()})
        self.outputs = tuple(TensorSpec(name, value.dtype.name, (None, len(value))) for name, value in outputs.items())


def test_figures_of_scores_counted_by_hand():
    (found,) = margins_on(Chosen(SCORES), random_pictures(INFO, 3)).selections
    assert (found.name, found.kept, found.tokens) == ("selection 1, before block 4", 4, 16)
    assert found.margin.median == pytest.approx((0.1 - 0.06) / 0.08)
    assert found.attention.median == pytest.approx(0.4 + 0.25 + 0.15 + 0.1)
    assert found.keep_ratios[0.95].median == 5 / 16  # the first five hold 96 %
    assert found.margin.worst == pytest.approx(found.margin.median)


def test_with_few_images_all_of_them_reach_the_value_for_95_percent():
    """Percentiles are not interpolated: one of two images would not reach a value between them."""
    engine = Chosen(SCORES)
    both = {"selected_0": np.tile(np.arange(4), (2, 1)), "scores_0": np.float32([SCORES, np.linspace(0.06, 0.065, 16)])}
    engine._compute = lambda images: both
    (found,) = margins_on(engine, random_pictures(INFO, 2)).selections
    assert found.keep_ratios[0.95].worst == 1.0
    assert found.attention.worst == pytest.approx(np.sort(both["scores_0"][1])[-4:].sum() / both["scores_0"][1].sum())


@pytest.mark.parametrize(
    ("ratios", "count", "blocks"),
    [
        ((1.0, 0.5), 1, ["8"]),  # static: a stage that keeps every token makes no selection
        ((1.0, 0.5), 2, ["4", "8"]),  # elastic, or elastic at a fixed keep ratio: each stage makes one
        ((0.5, 1.0), 1, ["4"]),
    ],
)
def test_a_title_names_the_block_of_its_selection(ratios, count, blocks):
    info = dataclasses.replace(INFO, stages=(4, 8), keep_ratios=ratios)
    found = selections_from({f"selected_{index}": np.zeros((1, 8), np.int64) for index in range(count)}, info)
    assert [each.title for each in found] == [
        f"selection {index + 1}, before block {block}" for index, block in enumerate(blocks)
    ]


def test_scores_that_are_no_numbers_are_refused():
    with pytest.raises(RuntimeFailedError, match="not finite .* for 3 of 3 images"):
        margins_on(Chosen([np.nan, *SCORES[1:]]), random_pictures(INFO, 3))


def test_the_spread_is_over_images(small_onnx):
    with open_engine(small_onnx) as engine:
        seen = random_pictures(engine.info, 24)
        found = margins_on(engine, seen).selections
        outputs = run_all(engine, as_input(seen, engine.info))
    for index, each in enumerate(found):
        scores = outputs[f"scores_{index}"].astype(float)
        kept = [s[outputs[f"selected_{index}"][row]] for row, s in enumerate(scores)]
        shares = [k.sum() / s.sum() for k, s in zip(kept, scores, strict=True)]
        assert each.attention.median == pytest.approx(np.median(shares))
        assert each.attention.worst == pytest.approx(np.percentile(shares, 5, method="lower"))
        firsts = [np.sort(s)[-len(k) - 1] for k, s in zip(kept, scores, strict=True)]  # the first score dropped
        gaps = [(k.min() - first) / ((k.min() + first) / 2) for k, first in zip(kept, firsts, strict=True)]
        assert each.margin.median == pytest.approx(np.median(gaps))
        assert each.margin.worst == pytest.approx(np.percentile(gaps, 5, method="lower"))
        assert each.margin.worst < each.margin.median
        assert each.keep_ratios[0.9].median < each.keep_ratios[0.9].worst
        assert each.keep_ratios[0.9].median < each.keep_ratios[0.95].median


def test_a_selection_that_keeps_every_token_has_no_margin():
    outputs = {"selected_0": np.arange(16), "scores_0": np.float32(SCORES)}
    engine = Chosen(SCORES)
    engine._compute = lambda images: {name: np.tile(value, (len(images), 1)) for name, value in outputs.items()}
    assert margins_on(engine, random_pictures(INFO, 1)).selections == ()


def test_missing_scores_are_refused():
    engine = Chosen(SCORES)
    engine._compute = lambda images: {"selected_0": np.zeros((len(images), 4), np.int64)}
    with pytest.raises(UsageError, match="does not output the scores"):
        margins_on(engine, random_pictures(INFO, 1))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    for i, seen in enumerate(random_pictures(dataclasses.replace(INFO, image_size=64), 5)):
        Image.fromarray(seen).save(tmp_path / "images" / f"{i}.png")
    return tmp_path


def test_a_checkpoint_and_its_export_have_the_same_margins(cli, folder, small_checkpoint, small_onnx):
    documents = []
    for artefact in (small_checkpoint, small_onnx):
        code, out, _ = cli("margins", artefact, "--images", "images", "--json")
        assert code == 0
        documents.append(json.loads(out))
    first, second = documents
    found = evodeploy.margins(small_onnx, "images")
    assert json.loads(json.dumps(found.to_dict())) == second
    assert first["images"] == 5
    assert [s["kept"] for s in first["selections"]] == [32, 32]
    for ours, theirs in zip(first["selections"], second["selections"], strict=True):
        assert ours["attention"] == pytest.approx(theirs["attention"], rel=1e-4)
    code, out, _ = cli("margins", small_onnx, "--images", "images")
    assert (code, out) == (0, f"{small_onnx}, {found}\n")
    assert "selection 2, before block 4  32 of 64" in out


def test_artefacts_without_selections_are_refused_with_the_command_that_helps(cli, folder, small_checkpoint):
    assert cli("export", small_checkpoint, "-o", "silent.onnx", "--no-verify")[0] == 0
    code, _, err = cli("margins", "silent.onnx", "--images", "images")
    assert (code, "export it with --tokens" in err) == (2, True)
    assert cli("export", small_checkpoint, "-o", "dense.onnx", "--keep-ratio", "1", "--tokens", "--no-verify")[0] == 0
    code, _, err = cli("margins", "dense.onnx", "--images", "images")
    assert (code, "keeps every token" in err) == (2, True)
    assert cli("export", small_checkpoint, "-o", "one.onnx", "--keep-ratio", "1,0.5", "--tokens")[0] == 0
    assert cli("margins", "one.onnx", "--images", "images")[0] == 0


def test_class_attention_is_not_reported_if_tokens_merge(small):
    """Merging keeps tokens that are unlike others, not those with attention: a ratio for 90 % of it would be noise."""
    merging = with_elastic(reconfigured(small, with_selection(SMALL, fast_path="merge")), (0.1, 1.0))
    with torch_engine(merging, tokens=True) as engine:
        found = margins_on(engine, random_pictures(merging.info, 6))
    for each in found.selections:
        assert (each.attention, each.keep_ratios) == (None, {})
        assert 0 < each.margin.median < 0.5
    assert found.recommended == {}
    assert json.loads(json.dumps(found.to_dict()))["selections"][0]["attention"] is None
    assert "tokens merge: the kept ones are least similar to any other" in str(found)
    assert "of it at" not in str(found)
    assert "--keep-ratio" not in str(found)


def test_ratios_are_recommended_for_an_elastic_artefact_within_its_bounds(small_elastic, small_onnx):
    images = list(np.random.default_rng(2).integers(0, 256, (3, 64, 64, 3), np.uint8))
    found = evodeploy.margins(small_elastic, images)
    with open_engine(small_elastic) as engine:
        for share, ratios in found.recommended.items():
            kept = engine.info.keep_of(ratios)
            wanted = [each.keep_ratios[share].worst * each.tokens for each in found.selections]
            assert all(less <= count < less + 1.1 for count, less in zip(kept, wanted, strict=True))
            assert f"{share:.0%} of it in 95 % of images: --keep-ratio {ratios[0]:g},{ratios[1]:g}" in str(found)
    assert list(found.recommended) == [0.9, 0.95]
    assert evodeploy.margins(small_onnx, images).recommended == {}


def test_a_recommended_ratio_keeps_the_intended_number_of_tokens():
    stage = ElasticStage(100, 1, 100)
    for kept in range(1, 101):
        assert int(_ratio(kept / 100, stage) * 100) == kept  # 7 / 100 * 100 is above 7
