from __future__ import annotations

import pytest

from evodeploy.errors import UsageError
from evodeploy.inspection.roofline.cards import CARDS, card_named


def test_every_card_states_its_source_and_its_figures_are_plausible():
    for name, card in CARDS.items():
        rates = card.rates
        assert name == card.name and card.source.startswith("NVIDIA")
        assert card.architecture[:2] == "sm" and card.architecture[2:].isdigit()
        assert 4 <= card.l2 <= 128 and 300 <= card.bandwidth <= 8000 and 40 <= card.multiprocessors <= 170
        assert rates.fp32 < rates.fp16 <= 0.51 * rates.int8, name
        assert rates.tf32 is None or rates.fp32 <= rates.tf32 <= 0.51 * rates.fp16
        assert rates.bf16 is None or any(abs(rates.bf16 - rates.fp16 / part) < 0.1 for part in (1, 2))
        assert rates.fp8 in (None, rates.int8)


def test_no_rate_counts_sparsity():
    """Of each architecture, dense FP16 operations of one multiprocessor in one cycle, at clocks below 2.6 GHz."""
    dense = {"sm75": 1024, "sm80": 2048, "sm86": 1024, "sm89": 1024, "sm90": 4096, "sm100": 8192, "sm120": 1024}
    for card in CARDS.values():
        clock = card.rates.fp16 * 1e12 / card.multiprocessors / dense[card.architecture]
        assert 1.2e9 < clock < 2.6e9, f"{card.name} would run at {clock / 1e9:.2f} GHz"


def test_fp32_products_round_to_tf32_only_where_they_may():
    a100, t4 = CARDS["a100"], CARDS["t4"]
    assert a100.per_second("fp32", tf32=True) == 156e12
    assert a100.per_second("fp32", tf32=False) == 19.5e12
    assert t4.per_second("fp32", tf32=True) == 8.1e12


def test_a_card_without_the_units_is_refused():
    with pytest.raises(
        UsageError, match=r"NVIDIA A100 80GB SXM has no FP8 products.*it has FP32, TF32, FP16, BF16, INT8"
    ):
        CARDS["a100"].per_second("fp8", tf32=True)


def test_an_unknown_card_is_refused_with_a_list():
    assert card_named("L4") is CARDS["l4"]
    with pytest.raises(UsageError, match=r"no card is called 'gtx970'; known are t4, a10, a100, .*b200"):
        card_named("gtx970")
