"""Every output is checked before any work: against the inputs, the other outputs, and the files that are there."""

from __future__ import annotations

import json
import os
import shutil
import threading

import pytest
from data_kinds import contents
from PIL import Image

from evodeploy.evaluation.journal import Journal
from evodeploy.files import claimed
from evodeploy.kinds import ONNX


@pytest.fixture
def home(small_checkpoint, small_onnx, tmp_path, monkeypatch):
    """Inputs, and files of others under names that outputs may have."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(small_checkpoint, "ckpt.pth")
    shutil.copy(small_onnx, "m.onnx")
    os.link("m.onnx", "linked.onnx")
    for folder in ("images/c0", "album"):
        (tmp_path / folder).mkdir(parents=True)
        Image.new("RGB", (70, 80), (80, 10, 200)).save(tmp_path / folder / "a.png")
    (tmp_path / "labels.csv").write_text("path,label\nc0/a.png,c0\n")
    (tmp_path / "their.json").write_text(json.dumps({"name": "theirs"}))
    (tmp_path / "their.json.part").write_text("a download that was cut short")
    (tmp_path / "their.engine.json").write_text(json.dumps({"name": "theirs"}))
    (tmp_path / "their.csv").write_text("a,b\n1,2\n")
    (tmp_path / "their.onnx").write_text("not an ONNX file")
    return tmp_path


ITSELF, FORCED, TWO = "is the input itself", "and --force replaces nothing else", "two outputs would be written to"
CASES = {
    "export ckpt.pth -o their.onnx --force": FORCED,
    "init evo_deit_tiny_patch16_224 -o m.onnx --force": "expected a name that ends with .pth",
    "build-engine m.onnx -o linked.onnx --force": ITSELF,
    "build-engine m.onnx -o their.engine": "their.engine.json already exists",
    "build-engine m.onnx -o their.engine --force": FORCED,
    "build-engine m.onnx --log m.engine": TWO,
    "build-engine m.onnx --log their.csv --force": FORCED,
    "build-engine m.onnx --timing-cache m.onnx": ITSELF,
    "build-engine m.onnx --timing-cache m.engine.json": TWO,
    "build-engine m.onnx --timing-cache /dev/null": "a device, a pipe or a socket",
    "refit m.onnx their.onnx -o their.onnx --force": ITSELF,
    "bench m.onnx -o m.onnx --force": ITSELF,
    "bench m.onnx --csv linked.onnx --force": ITSELF,
    "bench m.onnx --html m.onnx --force": ITSELF,
    "bench m.onnx -o their.json --force": FORCED,
    "bench m.onnx --csv their.csv --force": FORCED,
    "bench m.onnx -o r.html --html r.html": TWO,
    "eval m.onnx --data images --labels labels.csv -o labels.csv --force": ITSELF,
    "eval m.onnx --data images -o their.json --force": FORCED,
    "predict m.onnx images --output their.csv --force": FORCED,
    "visualize m.onnx images -o album --force": FORCED,
    "visualize m.onnx album -o album --force": ITSELF,
}


@pytest.mark.parametrize("line", CASES)
def test_an_output_that_would_destroy_something_is_refused(cli, home, line):
    before = contents(home)
    code, out, err = cli(*line.split())
    assert (code, out) == (2, "")
    assert CASES[line] in err
    assert contents(home) == before


def test_a_stranger_s_part_is_no_interrupted_evaluation(cli, home):
    (home / "their.json").unlink()
    before = contents(home)
    for force in ((), ("--force",)):
        code, _, err = cli("eval", "m.onnx", "--data", "images", "-o", "their.json", *force)
        assert (code, "their.json.part is not an interrupted evaluation" in err) == (2, True)
    assert contents(home) == before


def test_bad_options_lose_no_interrupted_evaluation(cli, home):
    with Journal(home / "r.json.part", {"artefacts": [], "images": "x"}).open():
        pass
    before = contents(home)
    code, _, err = cli("eval", "m.onnx", "--data", "nowhere", "-o", "r.json", "--force")
    assert (code, "nowhere" in err) == (2, True)
    assert contents(home) == before


def test_an_export_that_another_run_is_writing_is_refused_at_once(cli, home):
    ended = []
    with claimed([(home / "x.onnx", ONNX)], False):
        thread = threading.Thread(target=lambda: ended.append(cli("export", "ckpt.pth", "-o", "x.onnx")))
        thread.start()
        thread.join()
    code, _, err = ended[0]
    assert code == 2
    assert "another run is writing" in err
    assert "exporting" not in err
    assert not (home / "x.onnx").exists()
