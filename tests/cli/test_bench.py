"""`evodeploy bench`: its outputs, a comparison of two runs, and what it refuses."""

from __future__ import annotations

import json
import shutil

import pytest
from PIL import Image

from evodeploy.benchmark.report.report import Report
from evodeploy.errors import UnavailableError

QUICK = ("--engines", "torch,onnxruntime", "--precisions", "fp32", "--batch", "1,2", "--seconds", "0", "--rounds", "6")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """The machine's limit by a product that takes no time, and no patience with runs that still get faster."""
    monkeypatch.setattr("evodeploy.benchmark.measure.peak.SIDES", {"cpu": (64,)})
    monkeypatch.setattr("evodeploy.benchmark.measure.interleaved.PATIENCE", 1)


@pytest.fixture(scope="module")
def home(tmp_path_factory, small_checkpoint, small_onnx):
    folder = tmp_path_factory.mktemp("bench")
    shutil.copy(small_checkpoint, folder / small_checkpoint.name)
    shutil.copy(small_onnx, folder / "small.onnx")
    for i in range(3):
        Image.new("RGB", (70 + i, 80), (80 * i, 10, 200)).save(folder / f"{i}.png")
    return folder


def test_one_run_writes_every_form_and_compares_with_itself(cli, home, monkeypatch):
    monkeypatch.chdir(home)
    outputs = ("-o", "old.json", "--csv", "rows.csv", "--html", "report.html")
    code, out, err = cli("bench", "small.onnx", *QUICK, "--images", ".", *outputs)
    assert code == 0, err
    assert "fastest at batch 2:" in out
    assert "from files to labels" in out
    assert "× eager" in out
    rows = json.loads((home / "old.json").read_text())
    assert len(rows["results"]) == 8
    assert {entry["label"] for entry in rows["end_to_end"]} == {"torch fp32", "onnxruntime fp32"}
    assert len((home / "rows.csv").read_text().splitlines()) == 9
    assert "<svg" in (home / "report.html").read_text()
    code, _, err = cli("bench", "small.onnx", *QUICK, "-o", "old.json")
    assert (code, "already exists" in err) == (2, True)
    code, out, _ = cli("bench", "--compare", "old.json", "old.json")
    assert code == 0
    assert "no row changed of 8" in out
    for name, milliseconds in (("before.json", 1), ("after.json", 2)):
        for result in rows["results"]:
            result["samples_ms"] = [milliseconds * (1 + 0.01 * i) for i in range(30)]
        (home / name).write_text(json.dumps(rows))
    code, out, _ = cli("bench", "--compare", "before.json", "after.json", "--json")
    assert code == 1
    assert {change["verdict"] for change in json.loads(out)["changes"]} == {"slower"}


def test_the_ratios_of_an_elastic_file_are_rows_and_compared(cli, home, small_elastic, monkeypatch):
    monkeypatch.chdir(home)
    shutil.copy(small_elastic, "elastic.onnx")
    quick = (*QUICK[2:5], "1", *QUICK[6:], "--engines", "onnxruntime")
    code, out, err = cli("bench", "elastic.onnx", "--keep", "1.0,0.5/0.3", *quick, "-o", "ratios.json")
    assert code == 0, err
    assert "onnxruntime fp32 keep 0.5/0.3" in out
    code, out, _ = cli("bench", "--compare", "ratios.json", "ratios.json")
    assert (code, "no row changed of 2" in out) == (0, True)
    code, _, err = cli("bench", "small.onnx", "--keep", "0.5", *quick)
    assert (code, "small.onnx keeps a fixed share of tokens (0.5): leave --keep out" in err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--batch", "0"), "--batch is '0', expected batch sizes"),
        (("--engines", "torhc"), "no engine is called 'torhc'"),
        (("--compare", "one.json"), "--compare takes two JSON documents"),
        (("--compare", "a", "b", "--threads", "2"), "--threads has no meaning with --compare"),
        (("--min-change", "0.1"), "--min-change needs --compare"),
        (("--seconds", "1", "--min-seconds", "2"), "raise the maximum"),
        (("--images", "nowhere"), "nowhere does not exist (expected a folder, a glob, an image"),
    ],
)
def test_invalid_and_contradicting_options_are_refused(cli, home, monkeypatch, arguments, message):
    monkeypatch.chdir(home)
    files = () if "--compare" in arguments else ("small.onnx",)
    code, _, err = cli("bench", *files, *arguments)
    assert code == 2
    assert message in err


def test_nothing_that_runs_here_is_an_error(cli, home, monkeypatch):
    monkeypatch.chdir(home)
    code, out, err = cli("bench", "small.onnx", "--engines", "tensorrt", "--batch", "1", "--seconds", "0", "--json")
    assert code == 3
    assert "nothing could be measured" in err
    (row,) = json.loads(out)["results"]  # the reason is still given
    assert row["status"] == "unavailable"
    assert "and none is built: no NVIDIA driver is installed" in row["reason"]


def test_without_builds_nothing_is_built_or_looked_up(cli, home, monkeypatch):
    monkeypatch.chdir(home)
    asked = ("--engines", "tensorrt", "--no-build", "--engine-cache", "engines", "--batch", "1", "--seconds", "0")
    code, out, _ = cli("bench", "small.onnx", *asked, "--json")
    assert code == 3
    assert json.loads(out)["results"][0]["reason"].endswith("none is built: --no-build")
    assert not (home / "engines").exists()


def test_rows_that_cannot_be_written_to_one_file_are_shown_and_in_the_other(cli, home, tmp_path, monkeypatch):
    monkeypatch.chdir(home)
    save = Report.save

    def full(report, path, *, force=False):
        if path.suffix == ".json":
            raise UnavailableError(f"cannot write {path}: No space left on device")
        save(report, path, force=force)

    monkeypatch.setattr(Report, "save", full)
    outputs = ("-o", tmp_path / "r.json", "--csv", tmp_path / "r.csv")
    code, out, err = cli("bench", "small.onnx", *QUICK[2:5], "1", *QUICK[6:], "--engines", "onnxruntime", *outputs)
    assert (code, "fastest at batch 1: onnxruntime fp32" in out) == (3, True)
    assert err.endswith("r.json: No space left on device\n")
    assert [path.name for path in tmp_path.iterdir()] == ["r.csv"]
