"""The photograph set is the same everywhere, and the probe's interval is Wilson's."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))


def test_crops_follow_their_seed_and_their_number():
    from photographs import FILES, batch, crops

    few, more = crops(4, size=32), crops(12, size=32)
    assert all(np.array_equal(a, b) for a, b in zip(few, more, strict=False))
    assert not any(np.array_equal(a, b) for a, b in zip(few, crops(4, size=32, seed=1), strict=True))
    assert not np.array_equal(more[0], more[len(FILES)])
    assert batch(3, 32).shape == (3, 3, 32, 32)
    assert abs(batch(18, 32).mean()) < 1


def test_the_interval_of_a_share():
    from digits_probe import interval

    assert interval(90, 100) == pytest.approx((0.8256, 0.9448), abs=1e-4)
    assert interval(100, 100) == pytest.approx((0.9630, 1.0), abs=1e-4)
