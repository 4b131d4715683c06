"""Published models through every step: export, ONNX Runtime, OpenVINO, an FP16 engine; see benchmarks/matrix.py."""

from __future__ import annotations

import pytest
from matrix import steps

from evodeploy.models.random_weights import random_model
from evodeploy.models.zoo import ZOO, with_selection

REPRESENTATIVE = {("evo_deit_tiny_patch16_224", "stage"), ("EvoLeViT_128S", "stage")}
CASES = [
    pytest.param(name, mode, marks=() if (name, mode) in REPRESENTATIVE else pytest.mark.slow)
    for name in ZOO
    for mode in ("stage", "layer")
]


@pytest.mark.parametrize(("name", "selection"), CASES)
def test_every_step_of_a_published_model(name, selection):
    cells, passed = steps(random_model(with_selection(ZOO[name], selection=selection)))
    assert passed, cells


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])  # the test above has 0
@pytest.mark.parametrize("selection", ["stage", "layer"])
@pytest.mark.parametrize("name", list(ZOO))
def test_random_weights_of_any_seed_can_be_exported(cli, tmp_path, monkeypatch, name, selection, seed):
    monkeypatch.chdir(tmp_path)
    assert cli("init", name, "-o", "m.pth", "--seed", seed)[0] == 0
    code, _, err = cli("export", "m.pth", "--selection", selection, "--tokens")
    assert code == 0, err
