"""The photograph set is the same everywhere."""

from __future__ import annotations

import numpy as np


def test_crops_follow_their_seed_and_their_number():
    from photographs import FILES, batch, crops

    few, more = crops(4, size=32), crops(12, size=32)
    assert all(np.array_equal(a, b) for a, b in zip(few, more, strict=False))
    assert not any(np.array_equal(a, b) for a, b in zip(few, crops(4, size=32, seed=1), strict=True))
    assert not np.array_equal(more[0], more[len(FILES)])
    assert batch(3, 32).shape == (3, 3, 32, 32)
    assert abs(batch(18, 32).mean()) < 1
