"""How a preprocessing is stated at export, and what later commands say of it."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from cases import SMALL
from graphs import restated
from PIL import Image

from evodeploy.errors import UsageError
from evodeploy.models.checkpoint import load_checkpoint
from evodeploy.models.layouts import to_published
from evodeploy.models.random_weights import random_model
from evodeploy.onnx_files import info_of, read_onnx
from evodeploy.specs import Preprocessing

OPTIONS = ("--mean", "0.5", "--std", "0.25,0.25,0.2", "--crop-pct", "0.9", "--crop-mode", "squash",
           "--interpolation", "bilinear")  # fmt: skip
STATED = Preprocessing((0.5,) * 3, (0.25, 0.25, 0.2), "bilinear", 0.9, "squash")
EVERY = "mean, std, interpolation, crop_pct, crop_mode"


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A checkpoint that says nothing of images, of a network that is exported fast."""
    path = tmp_path_factory.mktemp("bare") / "bare.pth"
    config = dataclasses.replace(SMALL, width=64, heads=1, depth=2, stages=(1,), keep_ratios=(0.5,))
    state = to_published(config, random_model(config).module.state_dict())
    torch.save({"model": state, "args": {"num_heads": 1}}, path)
    return path


@pytest.fixture(scope="module")
def run():
    """Run the command line in this process, for fixtures that last: (exit code, stdout, stderr)."""
    import contextlib
    import io

    from evodeploy.cli import app

    def command(*args):
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
            app([str(arg) for arg in args])
        for stream in (out, err):
            stream.seek(0)
        return ended.value.code or 0, out.read(), err.read()

    return command


@pytest.fixture(scope="module")
def stated(bare, run):
    """The export that states everything, and what was said."""
    names = bare.with_name("names.txt")
    names.write_text("\n".join(f"bird {number}" for number in range(10)))
    path = bare.with_name("stated.onnx")
    options = (*OPTIONS, "--class-names", names, "--keep-ratio", "0.5", "--no-verify")
    return path, run("export", bare, "-o", path, *options)


@pytest.fixture(scope="module")
def assumed(stated):
    """The same graph as its export without options would be."""
    how = Preprocessing(assumed=tuple(EVERY.split(", ")))
    return restated(stated[0], stated[0].with_name("assumed.onnx"), preprocessing=how, class_names=())


@pytest.fixture
def said(cli, bare, tmp_path, monkeypatch):
    """What an export says before it traces the network."""

    def stop(*args, **options):
        raise UsageError("stopped")

    def run(*options):
        monkeypatch.setattr("evodeploy.exporter.to_onnx.onnx_from_model", stop)
        return cli("export", bare, "-o", tmp_path / "x.onnx", *options)[2]

    return run


def test_what_is_assumed_is_a_warning_that_names_the_options(said):
    (warning,) = [line for line in said().splitlines() if "assumed" in line]
    assert warning.startswith(f"warning: {EVERY}: no source states how images were prepared")
    assert "--mean, --std, --interpolation, --crop-pct, --crop-mode of `evodeploy export`" in warning
    (warning,) = [line for line in said("--mean", "0.5", "--std", "0.5").splitlines() if "assumed" in line]
    assert warning.startswith("warning: interpolation, crop_pct, crop_mode: no source states")


def test_a_graph_that_takes_bytes_says_what_is_done_before_it(said):
    words = "prepare an RGB image as follows: both sides resized to 71 (bilinear), the centre 64 x 64 cropped"
    assert words in said("--input", "uint8", *OPTIONS)
    assert "before it" not in said(*OPTIONS)


def test_what_options_state_is_not_assumed_and_travels_in_the_metadata(stated):
    path, (code, _, err) = stated
    assert code == 0
    assert "assumed" not in err
    info = info_of(read_onnx(path))
    assert (info.preprocessing, info.preprocessing.assumed) == (STATED, ())
    assert info.label(3) == "bird 3"
    words = "RGB, both sides resized to 71 (bilinear), the centre 64 x 64 cropped"
    assert read_onnx(path).graph.input[0].doc_string == words


def test_inspect_shows_preprocessing_and_what_of_it_is_assumed(cli, assumed, stated, bare):
    for path in (assumed, bare):
        _, out, _ = cli("inspect", path)
        assert f"assumed          {EVERY}\n" in out
    _, out, _ = cli("inspect", stated[0])
    assert "assumed          –\n" in out
    assert "preprocessing    mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.2], interpolation: bilinear" in out
    _, out, _ = cli("inspect", stated[0], "--json")
    assert json.loads(out)["preprocessing"]["crop_mode"] == "squash"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--mean", "half"), "--mean is 'half', expected one number such as 0.5, or three"),
        (("--std", "0.5,0.5"), "--std is '0.5,0.5', expected one number"),
        (("--std", "0"), "std is 0, 0, 0 in the arguments, expected three numbers from 0.0001"),
        (
            ("--mean", "123.675,116.28,103.53"),
            "expected three numbers from -5 to 5 of channels in [0, 1] (divide values for",
        ),
        (
            ("--std", "58.395"),
            "std is 58.395, 58.395, 58.395 in the arguments, expected three numbers from 0.0001 to 5",
        ),
        (("--mean", "nan"), "--mean is 'nan', expected one number such as 0.5, or three"),
        (("--crop-pct", "1.5"), "--crop-pct is '1.5', expected a number from 0.25 to 1"),
        (("--crop-pct", "nan"), "--crop-pct is 'nan'"),
        (("--crop-mode", "border"), "border"),
        (("--class-names", "NAMES"), "lists 2 class names, expected one for each of the 10 classes"),
        (("--class-names", "none.txt"), "none.txt does not exist"),
    ],
)
def test_options_that_cannot_be_honoured_are_refused_and_nothing_is_written(cli, bare, tmp_path, options, message):
    (tmp_path / "names.txt").write_text("one\ntwo\n")
    options = [tmp_path / "names.txt" if option == "NAMES" else option for option in options]
    code, _, err = cli("export", bare, "-o", tmp_path / "x.onnx", *options)
    assert code == 2
    assert message in err
    assert not (tmp_path / "x.onnx").exists()


def test_verify_refuses_two_that_prepare_images_differently(cli, assumed, stated):
    code, _, err = cli("verify", assumed, stated[0])
    assert code == 2
    assert "prepare images differently (mean (0.485, 0.456, 0.406) and (0.5, 0.5, 0.5), std" in err
    assert "crop_pct 0.875 and 0.9, crop_mode center and squash" in err


def test_verify_runs_a_checkpoint_that_states_nothing_as_its_export_was_stated(cli, bare, stated):
    code, out, err = cli("verify", bare, stated[0], "--random", "2")
    assert (code, "PASSED" in out, "assumed" in err) == (0, True, False)


def test_verify_warns_where_both_assume(cli, bare, assumed):
    code, _, err = cli("verify", bare, assumed, "--random", "2")
    assert code == 0
    assert f"warning: {EVERY}" in err


def test_eval_says_what_differs_and_what_is_assumed(cli, tmp_path, assumed, stated):
    folder = tmp_path / "data" / "bird 3"
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (80, 90, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    code, out, err = cli("eval", stated[0], assumed, "--data", tmp_path / "data", "--json")
    assert code == 0
    assert f"warning: {assumed}: {EVERY}" in err
    assert f"{stated[0]} and {assumed} prepare images differently (mean (0.5, 0.5, 0.5) and (0.485" in err
    assert f"warning: {stated[0]}: " not in err
    assert json.loads(out)["images"] == 1


def test_what_init_writes_is_known(cli, tmp_path):
    code, _, _ = cli("init", "EvoLeViT_128S", "-o", tmp_path / "x.pth")
    assert code == 0
    how = load_checkpoint(tmp_path / "x.pth").info.preprocessing
    assert (how, how.assumed) == (Preprocessing(), ())
