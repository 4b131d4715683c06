"""What works, and what is asked for, where heavy packages are not installed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from evodeploy.engines.opener import open_engine
from evodeploy.errors import MissingExtraError

# Each command in one process that has numpy and onnx, but nothing that exports.
ALONE = """
import sys
sys.modules.update(dict.fromkeys(['torch', 'onnxscript', 'safetensors', 'onnxruntime', 'openvino', 'tensorrt_rtx']))
from evodeploy.cli import app
for arguments in (
    ['models', '--json'], ['inspect', 'small.onnx', '--json'], ['package', 'small.onnx', '--triton', 'p'],
):
    try:
        app(arguments)
    except SystemExit as ended:
        assert not ended.code, arguments
    print('---')
"""


def test_listing_models_inspecting_and_packaging_need_no_torch(tmp_path, small_onnx):
    (tmp_path / "small.onnx").write_bytes(small_onnx.read_bytes())
    run = subprocess.run([sys.executable, "-c", ALONE], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    models, inspected, packaged, _ = run.stdout.split("---\n")
    assert len(json.loads(models)) == 15
    assert json.loads(models)[0]["gflops"] == pytest.approx(0.82, abs=0.01)
    assert json.loads(inspected)["model"] == "evo_deit_test"
    assert "next: tritonserver" in packaged


@pytest.mark.parametrize("command", [("inspect",), ("package", "--triton", "repository")])
def test_reading_an_onnx_file_asks_for_onnx_alone(cli, tmp_path, monkeypatch, small_onnx, command):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "onnx", None)
    name, *options = command
    code, _, err = cli(name, small_onnx, *options)
    assert code == 3
    assert 'pip install "evodeploy[onnx]"' in err


@pytest.mark.parametrize(("problem", "extra"), [("no NVIDIA driver is installed", "cpu"), (None, "gpu")])
def test_the_onnxruntime_of_the_machine_is_asked_for(small_onnx, monkeypatch, problem, extra):
    """Of onnxruntime and onnxruntime-gpu each overwrites the other, so one is named."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr("evodeploy.engines.device.driver_problem", lambda: problem)
    with pytest.raises(MissingExtraError, match=rf"evodeploy\[{extra}\]"):
        open_engine(small_onnx, "onnxruntime")
