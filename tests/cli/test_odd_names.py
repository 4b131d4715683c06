"""What others called their files and classes forges no line of ours."""

from __future__ import annotations

import argparse
import os
import shutil

import pytest
import torch
from PIL import Image

ODD = ["a\nintact           True.pth", "a\x1b[2J\rb.pth", os.fsdecode(b"latin-\xe9.pth")]


@pytest.mark.parametrize("name", ODD)
def test_inspect_shows_a_fact_a_line(cli, tmp_path, small_checkpoint, name):
    plain, odd = tmp_path / "plain.pth", tmp_path / name
    for path in (plain, odd):
        shutil.copy(small_checkpoint, path)
    lines, odd_lines = (cli("inspect", path)[1].splitlines() for path in (plain, odd))
    assert [line[:17] for line in lines] == [line[:17] for line in odd_lines]
    assert all(line.isprintable() for line in odd_lines)


@pytest.mark.parametrize("name", ODD)
def test_an_error_is_one_line(cli, tmp_path, name):
    code, out, err = cli("inspect", tmp_path / name)
    assert (code, out) == (2, "")
    assert err.endswith("does not exist (expected a checkpoint: .pth, .pt or .safetensors)\n")
    assert err[:-1].isprintable()


@pytest.mark.parametrize(
    "line",
    [
        ("batch", "a.onnx", "ODD", "--output", "o"),
        ("batch", "a.onnx", "i", "--output", "ODD"),
        ("batch", "ODD", "i", "--output", "o"),
        ("serve", "ODD", "--replicas", "2"),
    ],
)
def test_what_ray_could_not_write_down_is_refused_first(cli, line):
    odd = os.fsdecode(b"lat\xe9")
    code, out, err = cli(*(odd if each == "ODD" else each for each in line))
    assert (code, out, err) == (
        2,
        "",
        "Error: the name 'lat\\udce9' is not UTF-8, which Ray does not accept: rename it\n",
    )


def test_a_prediction_is_one_line(cli, tmp_path, small_state):
    args = argparse.Namespace(model="evo_deit_test", num_heads=2, class_names=["x\nfake.png  cat 99 %\x1b[2J"] * 10)
    torch.save({"model": small_state, "args": args}, tmp_path / "x.pth")
    Image.new("RGB", (80, 64)).save(tmp_path / "a\nb.png")
    code, out, _ = cli("predict", tmp_path / "x.pth", tmp_path / "a\nb.png")
    assert code == 0
    assert out[:-1].isprintable() and r"a\nb.png  x\nfake.png" in out
