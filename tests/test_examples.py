"""Every example, run as its first line says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PICTURES = sorted((ROOT / "sample" / "images").glob("*.png"))
ARGUMENTS = {
    "classify.py": ([PICTURES[3]], "3"),
    "folder.py": ([ROOT / "sample" / "images"], "     1  7"),
    "threads.py": (PICTURES, "digit-7-0.png 7  (one of "),
    "slow_tokens.py": ([PICTURES[3]], "selection 2: 32 of 64"),
}


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    from evodeploy.exporter.to_onnx import onnx_from_model
    from evodeploy.models.checkpoint import load_checkpoint
    from evodeploy.onnx_files import write_onnx

    path = tmp_path_factory.mktemp("examples") / "digits.onnx"
    write_onnx(onnx_from_model(load_checkpoint(ROOT / "sample" / "digits.pth"), tokens=True), path)
    return path


def test_every_example_is_run():
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == ARGUMENTS.keys()


@pytest.mark.parametrize("name", ARGUMENTS)
def test_example(name, digits):
    arguments, expected = ARGUMENTS[name]
    command = [sys.executable, ROOT / "examples" / name, digits, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert expected in done.stdout
