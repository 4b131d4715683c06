"""Distillation in processes of its own: killed, and several together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

import evodeploy
from evodeploy.distillation import loop, state

LAUNCHER = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
OPTIONS = ("--epochs", "3", "--batch", "8", "--precision", "fp32", "--elastic", "0.2:1.0", "--threads", "1", "--json")


def command(classifier, pictures, output, *more, launcher=()):
    options = ["distill", classifier, "--images", pictures, "-o", output, *OPTIONS, *more]
    return [sys.executable, *launcher, "-m", "evodeploy", *map(str, options)]


def weights(path):
    return torch.load(path, weights_only=False)["model"]


@pytest.mark.slow
def test_a_killed_training_resumes_to_the_same_weights(classifier, pictures, tmp_path):
    subprocess.run(command(classifier, pictures, tmp_path / "whole.pth"), check=True, capture_output=True)
    output = tmp_path / "out.pth"
    code = "from evodeploy.distillation import loop; loop.SAVE_EVERY = 0.0; from evodeploy.__main__ import main; main()"
    run = command(classifier, pictures, output)
    run[1:3] = ["-c", code]
    process = subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    part = tmp_path / "out.pth.part"
    while not part.exists() and process.poll() is None:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    content = torch.load(part, weights_only=True)  # whole, whenever the kill came
    assert content["schema"] == state.SCHEMA
    assert 1 <= content["progress"]["step"] < 12
    subprocess.run(command(classifier, pictures, output, "--resume"), check=True, capture_output=True)
    whole = weights(tmp_path / "whole.pth")
    assert all(torch.equal(tensor, whole[name]) for name, tensor in weights(output).items())


@pytest.mark.slow
def test_two_processes_train_as_one_does(classifier, pictures, tmp_path):
    records = []
    for name, started in (("one", ()), ("two", LAUNCHER)):
        run = command(classifier, pictures, tmp_path / f"{name}.pth", launcher=started)
        done = subprocess.run(run, check=True, capture_output=True, text=True)
        records.append(json.loads(done.stdout))  # one process answers
    one, two = records
    assert (two["computed"], two["steps"]) == (one["computed"], one["steps"]) == (96, 12)
    assert_same_but_for_rounding(classifier, tmp_path / "one.pth", tmp_path / "two.pth")
    assert [level["before"] for level in two["levels"]] == [level["before"] for level in one["levels"]]


def assert_same_but_for_rounding(start, one, two):
    """AdamW makes whole steps of what sums in another order round differently."""
    before, first, second = map(weights, (start, one, two))
    moved = sum(float((first[name] - tensor).abs().mean()) for name, tensor in before.items())
    difference = sum(float((first[name] - tensor).abs().mean()) for name, tensor in second.items())
    assert difference < 0.05 * moved


FOLDER_OF_ITS_OWN = """
import os, sys
from evodeploy.__main__ import main
if os.environ["RANK"] == "1":
    place = sys.argv.index("-o") + 1
    sys.argv[place] = sys.argv[place].replace("out.pth", "elsewhere.pth")
main()
"""


@pytest.mark.slow
def test_a_process_that_does_not_see_the_state_resumes_with_the_others(classifier, pictures, tmp_path, monkeypatch):
    def kill(step):
        if step.step == 5:
            raise KeyboardInterrupt

    options = {"epochs": 3, "batch": 8, "precision": "fp32", "elastic": (0.2, 1.0)}
    evodeploy.distill(classifier, pictures, tmp_path / "whole.pth", **options)
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    with pytest.raises(KeyboardInterrupt):
        evodeploy.distill(classifier, pictures, tmp_path / "out.pth", progress=kill, **options)
    script = tmp_path / "run.py"
    script.write_text(FOLDER_OF_ITS_OWN)
    run = command(classifier, pictures, tmp_path / "out.pth", "--resume", launcher=LAUNCHER)
    module = run.index("evodeploy")
    run[module - 1 : module + 1] = [str(script)]
    with subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            out, err = process.communicate(timeout=240)
        finally:
            process.terminate()  # both end, where they wait for each other
    assert process.returncode == 0, err
    assert "resuming after step 4" in err
    assert json.loads(out)["steps"] == 12
    assert_same_but_for_rounding(classifier, tmp_path / "whole.pth", tmp_path / "out.pth")
