"""Part 1: engines are built with every TensorRT installed, and verified."""

from __future__ import annotations

import pytest

from evodeploy.compare.verification import verify

pytestmark = pytest.mark.gpu


def test_an_engine_keeps_the_tokens_that_pytorch_keeps(exported, plan, found):
    verdict = verify(exported[0], plan, count=64)
    found |= {
        "largest_error": verdict.logits.max_error, "median_cosine": verdict.logits.median_cosine,
        "top1": verdict.logits.top1, "agreement": [each.agreement for each in verdict.selections],
        "errors": [each.errors for each in verdict.selections],
    }  # fmt: skip
    assert verdict.passed
