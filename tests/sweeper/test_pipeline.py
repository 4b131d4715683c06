"""Sweeps of a small network, for real: what is exported, measured, kept and gone on with."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

import evodeploy
from evodeploy.errors import UsageError
from evodeploy.sweeper import measuring
from evodeploy.sweeper.request import SweepRequest
from evodeploy.sweeper.space import Candidate
from evodeploy.sweeper.state import State

OPTIONS = ("--engines", "onnxruntime,openvino", "--seconds", 0.1, "--batch", 2, "--threads", 1)


@pytest.fixture
def here(small_checkpoint, tmp_path, monkeypatch):
    """Pictures in the folder of the class that the small network gives them when it keeps every token."""
    generator = np.random.default_rng(3)
    with evodeploy.load(small_checkpoint) as predictor:
        for i in range(12):
            picture = Image.fromarray(generator.integers(0, 256, (5, 5, 3), np.uint8)).resize((70, 60))
            path = tmp_path / "data" / f"c{predictor.predict(picture).label.index}" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
    for index in range(10):
        (tmp_path / "data" / f"c{index}").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("evodeploy.benchmark.measure.interleaved.PATIENCE", 1)  # figures are not looked at
    return tmp_path


def test_a_sweep_from_a_checkpoint_to_a_choice(cli, here, small_checkpoint):
    arguments = ("sweep", small_checkpoint, "-o", "out", "--data", "data", *OPTIONS, "--precision", "fp32,bf16")
    code, out, err = cli(*arguments, "--keep", "0.5,1.0", "--min-accuracy", 90, "--json")
    assert code == 0, err
    assert "left out: onnxruntime BF16" in err
    facts = json.loads(out)
    assert facts == json.loads((here / "out" / "sweep.json").read_text())
    points = {point["candidate"]["name"]: point for point in facts["points"]}
    assert (len(points), facts["threads"]) == (6, 1)
    assert points["keep 0.5, onnxruntime FP32"]["accuracy"]["value"] == 1.0
    assert points["keep 0.5, onnxruntime FP32"]["speed"]["value"] == 1.0
    assert all(point["speed"]["low"] <= point["speed"]["value"] <= point["speed"]["high"] for point in points.values())
    assert any(point["on_front"] for point in points.values())
    models = sorted(path.name for path in (here / "out" / "models").iterdir())
    assert models == ["keep-0.5.fp32.onnx", "keep-1.fp32.onnx"]
    assert points[facts["chosen"]]["accuracy"]["value"] >= 0.9
    with evodeploy.load(here / "out" / "deploy.toml") as predictor:
        assert f"{predictor.info.keep_ratios[0]:g}, {predictor.engine.name} " in facts["chosen"]
    assert f'candidate = "{facts["chosen"]}"' in (here / "out" / "deploy.toml").read_text()
    assert (here / "out" / "front.svg").read_text().startswith("<svg")

    code, out, err = cli(*arguments, "--keep", "0.5,1.0,0.2")  # the known is not done again
    assert code == 0, err
    assert "exporting keep-0.2.fp32.onnx" in err
    assert "exporting keep-0.5.fp32.onnx" not in err
    assert err.count("evaluating") == 3
    assert "timing 3 candidates against" in err
    assert "sitting 3 of 3" in err
    assert out.count("●") >= 1
    state = (here / "out" / "state.json").read_text()
    assert cli(*arguments, "--keep", "1.0,0.5")[0] == 2  # another reference
    assert cli("sweep", small_checkpoint, "-o", "out", *OPTIONS, "--keep", "0.5,1.0")[0] == 2  # other data
    assert (here / "out" / "state.json").read_text() == state


@pytest.mark.slow
def test_throughput_alone(cli, here, small_checkpoint):
    code, out, err = cli("sweep", small_checkpoint, "-o", "fast", *OPTIONS, "--keep", "1.0,0.5", "--precision", "fp32")
    assert code == 0, err
    assert "evaluating" not in err
    assert not (here / "fast" / "front.svg").exists()
    assert "keep" in out
    code, _, err = cli(
        "sweep",
        small_checkpoint,
        "-o",
        "fast",
        *OPTIONS,
        "--keep",
        "1.0,0.5",
        "--precision",
        "fp32",
        "--min-accuracy",
        5,
    )
    assert code == 2
    assert "needs labelled images" in err


def test_a_spent_budget_names_what_is_left(cli, here, small_checkpoint):
    code, _, err = cli("sweep", small_checkpoint, "-o", "out", *OPTIONS, "--keep", "1.0,0.5", "--budget", 0)
    assert code == 2
    assert "the budget is too small" in err


def test_a_budget_that_ends_while_candidates_are_timed_is_said(tmp_path, monkeypatch):
    pair = tuple(Candidate((ratio,), "fp32", "onnxruntime") for ratio in (1.0, 0.5))
    (tmp_path / "models").mkdir()
    for each in pair:
        (tmp_path / "models" / each.file).touch()
    clock = iter([0.0] * 3)  # the beginning and both exports; the first group of a sitting is always timed
    monkeypatch.setattr(measuring.time, "monotonic", lambda: next(clock, 99.0))
    monkeypatch.setattr(measuring, "_judge", lambda *_: None)
    monkeypatch.setattr(measuring, "_timed_in_turn", lambda group, *_: [np.ones(9)] * len(group))
    state = State(tmp_path / "state.json", {"checkpoint": "", "reference": ""})
    request = SweepRequest(tmp_path / "a.pth", tmp_path, pair, budget=1)
    with pytest.raises(UsageError, match="the budget was spent before any candidate was timed"):
        measuring.measured(request, state)
    assert len(measuring.measured(dataclasses.replace(request, budget=None), state)[0]) == 2  # resumed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": "labels.csv"}, "--labels and --limit are of the labelled images: add --data"),
        ({"limit": 5}, "--labels and --limit are of the labelled images: add --data"),
        ({"images": "data"}, "--images calibrates INT8, which is not tried"),
        ({"threads": 0}, "threads is 0"),
        ({"batch": 0}, "batch is 0"),
        ({"seconds": float("nan")}, "seconds nan"),
        ({"engines": "abacus"}, "no engine is called 'abacus'"),
    ],
)
def test_options_that_would_be_ignored_are_refused(here, small_checkpoint, options, message):
    with pytest.raises(UsageError, match=message):
        evodeploy.sweep(small_checkpoint, "out", **{"engines": "onnxruntime", "precisions": "fp32", **options})
    assert not (here / "out").exists()


@pytest.mark.slow
def test_what_fails_is_left_out_and_the_others_go_on(cli, here, small_checkpoint):
    arguments = ("sweep", small_checkpoint, "-o", "out", *OPTIONS, "--precision", "fp32", "--keep", "1.0,0.01")
    code, out, err = cli(*arguments, "--json")
    assert code == 0, err
    facts = json.loads(out)
    assert len(facts["points"]) == 2
    assert len(facts["left_out"]) == 2
    assert "left out: keep 0.01" in err


def test_int8_needs_images(cli, here, small_checkpoint):
    code, _, err = cli("sweep", small_checkpoint, "-o", "out", *OPTIONS, "--precision", "int8")
    assert code == 2
    assert "add --images DIR, or leave out int8" in err


@pytest.mark.slow
def test_ratios_are_searched_by_stage(cli, here, small_checkpoint):
    arguments = (
        "sweep",
        small_checkpoint,
        "-o",
        "out",
        *OPTIONS[2:],
        "--engines",
        "onnxruntime",
        "--precision",
        "fp32,int8",
    )
    arguments += ("--data", "data", "--by-stage", "--keep", "0.5,1.0,0.001")
    code, out, err = cli(*arguments, "--json")
    assert code == 0, err
    names = [point["candidate"]["name"] for point in json.loads(out)["points"]]
    assert len(names) == 6
    assert names[0] == "keep 1, onnxruntime FP32"
    assert names[1] in ("keep 0.5/1, onnxruntime FP32", "keep 1/0.5, onnxruntime FP32")
    assert names[2] == "keep 0.5, onnxruntime FP32"
    assert err.count("evaluating") == 4 + 3  # both first steps were weighed
    assert "left out: keep 0.5/0.001" in err  # which keeps no token
    code, out, err = cli(*arguments)
    assert code == 0, err
    assert "evaluating" not in err
    code, _, err = cli(*arguments[:-1], "1.0,0.7/0.5")
    assert (code, "give ratios without strokes" in err) == (2, True)
    code, _, err = cli("sweep", small_checkpoint, "-o", "other", "--by-stage")
    assert (code, "add --data DIR" in err) == (2, True)
