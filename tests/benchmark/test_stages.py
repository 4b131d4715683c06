from __future__ import annotations

import time

import pytest
from benchmark.fakes import fake, missing
from fake_engines import brightness_logits
from PIL import Image

from evodeploy.benchmark.stages import STAGES, end_to_end


def test_every_stage_is_timed_and_the_slowest_named(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path in paths:
        Image.new("RGB", (10, 12), "red").save(path)

    def slow(images):
        time.sleep(0.05)
        return {"logits": brightness_logits(images, 3)}

    found, refused = end_to_end([("slow", fake("x", compute=slow)), ("none", missing("y"))], paths, 4, 0)
    assert tuple(found.seconds) == STAGES
    assert found.bottleneck == "inference"
    assert found.seconds["inference"] >= 0.05 / 4
    assert found.images_per_second == pytest.approx(1 / sum(found.seconds.values()))
    assert refused.reason == "no GPU here"
