"""Real signals to real processes, and a reader that leaves."""

from __future__ import annotations

import signal
import subprocess
import sys
from types import ModuleType

import pytest

from evodeploy import __main__

EVODEPLOY = (sys.executable, "-m", "evodeploy")


def test_a_closed_pipe_ends_without_a_word():
    process = subprocess.Popen([*EVODEPLOY, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    _, err = process.communicate()
    assert (process.returncode, err) == (141, "")


def test_ctrl_c_while_the_command_line_is_imported(monkeypatch):
    class Interrupted(ModuleType):
        def __getattr__(self, name):
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "evodeploy.cli", Interrupted("evodeploy.cli"))
    with pytest.raises(SystemExit) as ended:
        __main__.main()
    assert ended.value.code == 130


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
@pytest.mark.parametrize(
    ("line", "begun"),
    [
        (("verify", "small.pth", "small.onnx", "--random", "4000"), "running torch and onnxruntime"),
        (("export", "small.pth", "-o", "other.onnx"), "keep ratio"),
    ],
    ids=["verify", "export"],
)
def test_a_signal_in_the_midst_of_the_work(tmp_path, small_checkpoint, small_onnx, line, begun, number, code, word):
    (tmp_path / "small.pth").write_bytes(small_checkpoint.read_bytes())
    (tmp_path / "small.onnx").write_bytes(small_onnx.read_bytes())
    process = subprocess.Popen(
        [*EVODEPLOY, *line], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    while begun not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(number)
    out, err = process.communicate()
    assert (process.returncode, out) == (code, "")
    assert err.splitlines()[-1] == f"Error: {word}"
    assert "Traceback" not in err
    assert {path.name for path in tmp_path.iterdir()} == {"small.pth", "small.onnx"}
