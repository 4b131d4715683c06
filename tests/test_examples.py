"""Every example, run as its first line says."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from vit_sources import CLASSES, TimmViT, filled

ROOT = Path(__file__).parents[1]
PICTURES = sorted((ROOT / "sample" / "images").glob("*.png"))
ARGUMENTS = {
    "classify.py": ([PICTURES[3]], "3"),
    "folder.py": ([ROOT / "sample" / "images"], "     1  7"),
    "threads.py": (PICTURES, "digit-7-0.png 7  (one of "),
    "slow_tokens.py": ([PICTURES[3]], "selection 2: 32 of 64"),
}


def test_every_example_is_run():
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == ARGUMENTS.keys() | {"from_timm.py"}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_example(name, digits_onnx):
    arguments, expected = ARGUMENTS[name]
    command = [sys.executable, ROOT / "examples" / name, digits_onnx, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert expected in done.stdout


def test_from_timm(tmp_path, monkeypatch, capsys, logged):
    """In this process, with a module as timm's in place of timm, which is not installed."""

    def create_model(name, pretrained):
        module = filled(TimmViT())
        labels = [f"kind {i}" for i in range(CLASSES)]
        module.pretrained_cfg = {"architecture": name, "mean": (0.5,) * 3, "std": (0.5,) * 3, "label_names": labels}
        return module

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(create_model=create_model))
    monkeypatch.setattr(sys, "argv", ["from_timm.py", "vit_small_patch8_48", *map(str, PICTURES[:2])])
    runpy.run_path(str(ROOT / "examples" / "from_timm.py"))
    exported, first, second = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"vit_small_patch8_48\.onnx  4\.\d MB  \d+\.\d s  all 3 checks passed", exported)
    assert logged[0] == "the TimmViT: vit_small_patch8_48, 48 px, 7 classes, keep ratio 1, 1"
    for line, picture in ((first, PICTURES[0]), (second, PICTURES[1])):
        assert re.fullmatch(rf"{re.escape(str(picture))}: kind \d, \d+\.\d ms for 2 images", line)
