from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from evodeploy.models.checkpoint import layout_for, random_model, save_checkpoint
from evodeploy.models.zoo import EvoDeiTConfig

sys.path.insert(0, str(Path(__file__).parent))
from golden import recipe

GOLDEN = Path(__file__).parent / "golden"
torch.set_num_threads(2)


def golden_state(model: str) -> dict[str, torch.Tensor]:
    keys = json.loads((GOLDEN / "keys" / f"{model}.json").read_text())
    return {name: torch.from_numpy(value) for name, value in recipe.checkpoint(keys).items()}


def golden_entries(prefix: str) -> list[str]:
    return [tag for tag in json.loads((GOLDEN / "index.json").read_text()) if tag.startswith(prefix)]


def golden_entry(tag: str) -> tuple[dict, np.ndarray, dict[str, np.ndarray]]:
    """The entry of the index, its images, and what the reference computes for them."""
    entry = json.loads((GOLDEN / "index.json").read_text())[tag]
    images = recipe.images(entry["batch"], entry["image_size"], entry["seed"])
    return entry, images, dict(np.load(GOLDEN / "outputs" / f"{tag}.npz"))


SMALL = EvoDeiTConfig(
    "evo_deit_test",
    width=64,
    heads=2,
    depth=6,
    image_size=64,
    patch_size=8,
    mlp_ratio=2.0,
    num_classes=10,
    stages=(2, 4),
)


@pytest.fixture(scope="session")
def small():
    """A loaded model small enough to export in seconds, both stages selecting 32 of 64 tokens."""
    return random_model(SMALL, seed=3)


@pytest.fixture(scope="session")
def small_state(small):
    return layout_for(SMALL).to_published(small.module.state_dict())


@pytest.fixture(scope="session")
def small_checkpoint(small, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("small") / "small.pth"
    save_checkpoint(small, path)
    return path


@pytest.fixture(scope="session")
def small_onnx(small_checkpoint, tmp_path_factory) -> Path:
    """The small model exported with its selections as outputs."""
    from evodeploy.export.to_onnx import onnx_from_model
    from evodeploy.models.checkpoint import load_checkpoint
    from evodeploy.onnx_files import write_onnx

    path = tmp_path_factory.mktemp("onnx") / "small.onnx"
    write_onnx(onnx_from_model(load_checkpoint(small_checkpoint), tokens=True), path)
    return path


@pytest.fixture
def small_images() -> np.ndarray:
    return np.random.default_rng(5).standard_normal((3, 3, 64, 64), dtype=np.float32)


@pytest.fixture
def cli(capsys):
    """Run the command line in this process: (exit code, stdout, stderr)."""
    from evodeploy.cli import app

    def run(*args: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            app([str(arg) for arg in args])
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return run
