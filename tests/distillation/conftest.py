from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evodeploy.models.random_weights import random_model
from evodeploy.models.saving import save_checkpoint
from evodeploy.models.zoo import EvoDeiTConfig

TINY = EvoDeiTConfig(
    "evo_deit_tiny_test", width=32, heads=2, depth=3, image_size=32, patch_size=8, mlp_ratio=2.0, num_classes=4,
    stages=(1, 2),
)  # fmt: skip
CLASSES = ("bird", "cat", "dog", "fox")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """Forty coloured pictures, ten in a folder for each class."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for name in CLASSES:
        (folder / name).mkdir()
        for number in range(10):
            cells = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
            Image.fromarray(cells).resize((37, 37)).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def classifier(tmp_path_factory) -> Path:
    """A network of four classes that were not named."""
    path = tmp_path_factory.mktemp("classifier") / "tiny.pth"
    save_checkpoint(random_model(TINY, seed=1), path)
    return path


@pytest.fixture(scope="session")
def backbone(tmp_path_factory) -> Path:
    """The same without a classifier, so that its features are compared."""
    path = tmp_path_factory.mktemp("backbone") / "tiny.pth"
    save_checkpoint(random_model(dataclasses.replace(TINY, num_classes=0), seed=1), path)
    return path
