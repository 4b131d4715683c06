from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from fake_engines import FakeEngine, brightness_logits, logits_by_first_pixel

from evodeploy.elastic import ElasticStage, checked_keep, shared_ratios, shortest_ratio
from evodeploy.engines.base import run_all
from evodeploy.engines.opener import open_engine
from evodeploy.errors import InputError, RuntimeFailedError, UsageError
from evodeploy.specs import BatchRange, EngineOptions, ModelInfo

INFO = ModelInfo("fake", image_size=8, patch_size=4, num_classes=3, selection="stage", keep_ratios=(0.5,))
ELASTIC = dataclasses.replace(INFO, keep_ratios=(0.5, 0.3), elastic=(ElasticStage(40, 4, 40), ElasticStage(10, 2, 9)))
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
        ([[1.0]], "is of type list, expected a NumPy array"),
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
    ("chunk", "sizes"), [(32, [32, 8]), (4, [4] * 9 + [1]), (6, [8, 8, 8, 8, 8]), (16, [16, 16, 8]), (100, [37])]
)
def test_a_batch_between_two_profiles_is_filled_up_to_the_next_that_is_taken(chunk, sizes):
    seen = []

    def compute(images):
        seen.append(len(images))
        return logits_by_first_pixel(images)

    images = np.arange(37, dtype=np.float32)[:, None, None, None] * np.ones((37, 3, 8, 8), np.float32)
    gap = (BatchRange(1, 4), BatchRange(8, 64))
    with FakeEngine(INFO, BatchRange(1, 64), compute, ranges=gap) as engine:
        np.testing.assert_array_equal(run_all(engine, images, chunk)["logits"][:, 0], np.arange(37))
        with pytest.raises(InputError, match="batch of 6 images is outside this engine's range of 1 to 4, 8 to 64"):
            engine.run(images[:6])
    assert seen == sizes


@pytest.mark.parametrize(
    ("batch", "text", "inside", "outside"),
    [(BatchRange(1, 8), "1 to 8", 8, 9), (BatchRange(4, 4), "4", 4, 3), (BatchRange(2), "2 or more", 10**6, 1)],
)
def test_batch_ranges_include_both_ends(batch, text, inside, outside):
    assert str(batch) == text
    assert inside in batch
    assert outside not in batch


def test_an_elastic_engine_runs_with_the_tokens_that_a_call_asks_for_and_by_default_with_those_of_its_ratios():
    with FakeEngine(ELASTIC, BatchRange(1, 4)) as engine:
        engine.run(GOOD)
        engine.run(GOOD, keep=(40, 2))
        engine.run(GOOD, keep=np.array([4, 9]))
        list(engine.run_many([GOOD, GOOD], keep=(5, 5)))
        run_all(engine, GOOD, keep=[6, 6])
    assert engine.keeps == [(20, 3), (40, 2), (4, 9), (5, 5), (5, 5), (6, 6)]
    assert [str(spec) for spec in engine.inputs] == ["images float32 (batch, 3, 8, 8)", "keep int64 (2)"]


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ((3, 3), r"stage 0 cannot keep 3 of its 40 tokens: this artefact keeps 4 to 40, ratios 0.1 to 1"),
        ((4, 10), r"stage 1 cannot keep 10 of its 10 tokens: this artefact keeps 2 to 9, ratios 0.2 to 0.9"),
        ((4,), "keep has 1 numbers of tokens, expected 2: one for each stage"),
        ((4, 4, 4), "keep has 3 numbers of tokens, expected 2: one for each stage"),
        ((), "keep has 0 numbers of tokens, expected 2: one for each stage"),
        ((4.0, 4.0), "keep holds 4.0, expected whole numbers of tokens"),
        ((True, 4), "keep holds True, expected whole numbers of tokens"),
        (("a", 4), "keep holds 'a', expected whole numbers of tokens"),
    ],
)
def test_tokens_outside_of_an_elastic_artefact_s_bounds_are_refused(keep, message):
    with FakeEngine(ELASTIC) as engine, pytest.raises(InputError, match=message):
        engine.run(GOOD, keep=keep)
    assert engine.calls == 0


def test_the_ratios_that_a_refusal_names_are_taken():
    stages = [ElasticStage(64, 6, 55)]
    with pytest.raises(InputError, match=r"keeps 6 to 55, ratios 0.1 to 0.86$"):
        checked_keep([5], stages)
    assert [int(ratio * 64) for ratio in (0.1, 0.86)] == [6, 55]


def test_the_shortest_ratio_that_keeps_a_number_of_tokens_keeps_it():
    """29 / 100 · 100 is less than 29 in floats: 0.29 keeps 28, and 0.291 keeps 29."""
    assert [shortest_ratio(kept, 100) for kept in (1, 28, 29, 30, 100)] == [0.01, 0.28, 0.291, 0.3, 1.0]
    for tokens in (36, 49, 81, 100, 144, 196, 256, 400, 576, 1024, 3_000_000):
        for kept in range(1, tokens + 1, 1 if tokens <= 1024 else 12_347):
            assert int(shortest_ratio(kept, tokens) * tokens) == kept, (kept, tokens)


def test_the_ratios_that_all_stages_share_are_taken_by_each():
    """29 / 100 is taken for 28 tokens, and what 49 tokens keep at least may be too few of 196."""
    assert shared_ratios([ElasticStage(100, 29, 57)]) == (0.291, 0.58)
    assert shared_ratios([ElasticStage(49, 24, 24), ElasticStage(196, 98, 99)]) == (0.5, 0.51)
    assert shared_ratios([ElasticStage(64, 6, 64), ElasticStage(64, 6, 64)]) == (0.1, 1.0)
    assert shared_ratios([ElasticStage(64, 6, 8), ElasticStage(64, 32, 64)]) == ()


def test_a_static_engine_refuses_a_number_of_tokens(engine):
    with pytest.raises(InputError, match=r"keeps a fixed share of tokens \(0.5\): leave the keep ratio out, or export"):
        engine.run(GOOD, keep=(2,))
    with pytest.raises(InputError, match="fixed share of tokens"):
        engine.run(GOOD, keep=())
    assert engine.calls == 0


@pytest.mark.parametrize(
    ("ratios", "keep"),
    [
        (None, (20, 3)),
        (0.9, (36, 9)),
        ((1.0, 0.2), (40, 2)),
        ((0.5,), (20, 5)),
        ([0.1, 0.9], (4, 9)),
        (np.float32(0.5), (20, 5)),
    ],
)
def test_ratios_become_tokens_as_everywhere(ratios, keep):
    assert ELASTIC.keep_of(ratios) == keep


@pytest.mark.parametrize(
    ("ratios", "message"),
    [
        (0.1, "stage 1 cannot keep 1 of its 10 tokens"),
        (1.0, "stage 1 cannot keep 10 of its 10 tokens"),
        (1.5, r"keep ratio 1.5 is outside \(0, 1\]"),
        (0.0, r"keep ratio 0.0 is outside \(0, 1\]"),
        (float("nan"), r"keep ratio nan is outside \(0, 1\]"),
        (float("inf"), r"keep ratio inf is outside \(0, 1\]"),
        ((0.5, 0.5, 0.5), "3 keep ratios given, expected one, or one for each of 2 stages"),
        ("0.5", "a keep ratio is '0.5', expected a number"),
    ],
)
def test_ratios_outside_of_an_artefact_s_bounds_are_refused(ratios, message):
    with pytest.raises(InputError, match=message):
        ELASTIC.keep_of(ratios)
    with pytest.raises(InputError, match="fixed share of tokens"):
        INFO.keep_of(ratios)


@pytest.mark.parametrize(
    ("weights", "asked", "lower"),
    [("fp32", None, "fp32"), ("fp32", "bf16", "bf16"), ("int8", "bf16", "int8"), ("fp16", "fp32", "fp16")],
)
def test_the_precision_is_the_lower_of_the_weights_and_of_what_was_asked_for(weights, asked, lower):
    engine = FakeEngine(dataclasses.replace(INFO, precision=weights))
    engine.converted = asked
    assert engine.precision == lower


def test_an_engine_knows_what_it_was_asked_for(small_checkpoint):
    with open_engine(small_checkpoint, options=EngineOptions(precision="bf16")) as engine:
        assert (engine.info.precision, engine.precision) == ("fp32", "bf16")
