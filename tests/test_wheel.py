"""The package as others install it: the wheel, in an environment of its own, without torch and onnx."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]


def run(*command: object) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_installs_and_predicts_without_torch(tmp_path, small_onnx):
    run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path / "dist", ROOT)
    (wheel,) = (tmp_path / "dist").glob("evodeploy-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"evodeploy"}
    assert "evodeploy/py.typed" in names
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", f"{wheel}[cpu]")
    Image.new("RGB", (70, 80), (200, 10, 10)).save(tmp_path / "i.png")
    command = tmp_path / "venv" / "bin" / "evodeploy"
    for engine in ("onnxruntime", "openvino"):
        out = run(command, "predict", small_onnx, tmp_path / "i.png", "--engine", engine, "--json")
        assert len(json.loads(out)[0]["labels"]) == 5
    installed = run(python, "-m", "pip", "list")
    assert "torch" not in installed
    assert "\nonnx " not in installed
