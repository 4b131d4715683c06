"""`evodeploy build-engine` and `refit` as they are typed."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from data_kinds import listing

from evodeploy.onnx_files import info_of, read_onnx, set_info, write_onnx


@pytest.fixture
def folder(small_onnx, tmp_path, monkeypatch):
    shutil.copy(small_onnx, tmp_path / "m.onnx")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_several_profiles_and_a_log(cli, folder):
    code, out, err = cli(
        "build-engine", "m.onnx", "--fp16", "--target", "sm89,sm120", "--profile", "1:1:4", "--profile", "8:16:32",
        "--log", "build.log",
    )  # fmt: skip
    assert code == 0, err
    assert "batch 1 to 4 (best at 1); 8 to 32 (best at 16)" in out
    assert listing(folder) == ["build.log", "m.engine", "m.engine.json", "m.onnx"]
    assert json.loads((folder / "m.engine.json").read_text())["profiles"][1] == {"min": 8, "opt": 16, "max": 32}
    code, out, err = cli("inspect", "m.engine", "--json")
    assert json.loads(out)["attention_fused"] == "6 of 6"  # of one profile, not of both


def test_a_dry_run_says_what_would_be_built_and_writes_nothing(cli, folder):
    code, out, err = cli("build-engine", "m.onnx", "--fp16", "--target", "sm86", "--no-tf32", "--dry-run", "--log", "l")
    assert code == 0, err
    assert "would build m.engine: fp16 with tensorrt-rtx" in out
    assert "tf32: False" in out
    assert listing(folder) == ["m.onnx"]
    code, out, err = cli("build-engine", "m.onnx", "--fp16", "--target", "sm86", "--dry-run", "--json")
    facts = json.loads(out)
    assert facts["profiles"] == [{"min": 1, "opt": 32, "max": 128}]
    assert facts["attentions"] == 6
    assert any("TopK" in reason for reason in facts["kept_fp32"].values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--profile", "1:2"), "--profile is '1:2', expected MIN:OPT:MAX"),
        (("--profile", "1:2:4", "--max-batch", "8"), "exclude each other"),
        (("--workspace", "12"), "expected a size such as 512M or 4G"),
        (("--workspace", "0G"), "expected a size such as 512M or 4G"),
        (("--optimization-level", "9"), "--optimization-level is '9', expected a whole number from 0 to 5"),
        (("--optimization-level", "3"), "does not honour --optimization-level"),
        (("--timing-cache", "t"), "does not honour --timing-cache"),
        (("--log", "no/build.log"), "the folder no does not exist"),
        (("--log", "m.onnx", "--force"), "the input itself"),
        (("--images", "."), "no image|holds no"),
    ],
)
def test_a_bad_option_is_one_sentence_and_leaves_nothing(cli, folder, options, message):
    code, out, err = cli("build-engine", "m.onnx", "--fp16", "--target", "sm89", *options)
    assert code == 2
    assert out == ""
    assert any(part in err for part in message.split("|"))
    assert listing(folder) == ["m.onnx"]


def test_a_timing_cache_may_be_a_link(cli, folder):
    (folder / "link").symlink_to("timings")
    code, _, err = cli("build-engine", "m.onnx", "--fp16", "--target", "sm89", "--timing-cache", "link")
    assert code == 2
    assert "does not honour --timing-cache" in err  # which TensorRT for RTX says after the checks of all outputs


ENDS = [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]


@pytest.mark.parametrize(("number", "code"), ENDS)
def test_a_signal_ends_a_build_and_leaves_nothing(folder, number, code):
    """A real signal to a real build, without a terminal; the log says when TensorRT is at work."""
    command = [sys.executable, "-m", "evodeploy", "build-engine", "m.onnx", "--fp16", "--log", "build.log"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    log = folder / "build.log"
    while process.poll() is None and not (log.exists() and log.stat().st_size):
        time.sleep(0.005)
    assert process.poll() is None
    process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode == code
    assert "Traceback" not in err
    assert listing(folder) == ["build.log", "m.onnx"]


def test_refit_refuses_what_it_cannot_do(cli, folder):
    assert cli("build-engine", "m.onnx", "--fp16", "--target", "sm89")[0] == 0
    code, out, err = cli("refit", "m.engine", "m.onnx", "-o", "other.engine")
    assert (code, out) == (2, "")
    assert "cannot take other weights: build it with --refittable or --strip-plan" in err
    record = json.loads((folder / "m.engine.json").read_text())
    portable = record | {"refittable": True, "version_compatible": True}
    (folder / "m.engine.json").write_text(json.dumps(portable))
    code, out, err = cli("refit", "m.engine", "m.onnx", "-o", "other.engine")
    assert (code, out) == (2, "")
    assert "m.engine is version-compatible, and TensorRT cannot refit such engines: build it without" in err
    (folder / "m.engine.json").write_text(json.dumps(record | {"refittable": True}))
    code, out, err = cli("refit", "m.engine", "m.onnx", "-o", "other.engine")
    assert code == 3
    assert "refitted on the GPU it was built for, and here no NVIDIA driver" in err
    assert cli("refit", "m.engine", "m.onnx", "-o", "m.engine", "--force")[0] == 2
    assert listing(folder) == ["m.engine", "m.engine.json", "m.onnx"]


def test_an_engine_without_weights_is_not_run_and_says_how_it_gets_them(cli, folder):
    assert cli("build-engine", "m.onnx", "--fp16", "--target", "sm89")[0] == 0
    record = json.loads((folder / "m.engine.json").read_text())
    (folder / "m.engine.json").write_text(json.dumps(record | {"stripped": True}))
    code, out, err = cli("verify", "m.onnx", "m.engine")
    assert (code, out) == (2, "")
    expected = "m.engine holds no weights: put them in with `evodeploy refit m.engine m.onnx -o FULL.engine`"
    assert expected in " ".join(err.split())


def test_without_a_file_the_newest_export_is_taken_and_named(cli, folder):
    shutil.copy("m.onnx", "older.onnx")
    os.utime("older.onnx", (1e9, 1e9))
    code, out, err = cli("build-engine", "--target", "sm89", "--dry-run")
    assert code == 0, err
    assert "using m.onnx, the newest ONNX file in this folder; name another" in err
    assert "would build m.engine" in out


@pytest.mark.parametrize("command", [("build-engine", "--target", "sm89", "--dry-run"), ("bench", "--batch", "1")])
def test_without_a_file_nothing_is_guessed(cli, folder, command):
    def saved(name, info):
        proto = read_onnx(folder / "m.onnx")
        del proto.metadata_props[:]
        if info is not None:
            set_info(proto, info)
        write_onnx(proto, folder / name)

    info = info_of(read_onnx(folder / "m.onnx"))
    saved("other.onnx", dataclasses.replace(info, source_sha256="0" * 64))
    code, out, err = cli(*command)
    assert (code, out) == (2, "")
    assert "come from 2 checkpoints: name one of other.onnx, m.onnx" in err
    saved("other.onnx", None)  # of another tool
    code, out, err = cli(*command)
    assert (code, out) == (2, "")
    assert "other.onnx, was not exported by evodeploy" in err
