"""The runner of steps behind `make test-gpu` and `tests/gpu/accept.py`, with steps that need no GPU."""

from __future__ import annotations

import json
import signal
import sys
import threading
from pathlib import Path

import pytest
from benchmark.fakes import report, row
from gpu.conftest import building_problem, built_elastic
from gpu.facts import write_json
from gpu.parts import parts
from gpu.steps import FAILED, NOT_ALL_RUN, PASSED, Step, run_steps

from evodeploy.engines.tensorrt import flavour

BEGIN = "from gpu.facts import NotRunError, of_this_process; import os, sys, time, json; facts = of_this_process()\n"
PASSES = BEGIN + "with facts.check('sum') as found: found['value'] = float('nan')\n"
FAILS = BEGIN + "with facts.check('first'): assert 1 == 2, 'sums differ'\nwith facts.check('second'): pass\n"
CRASHES = BEGIN + "with facts.check('fine'): pass\nwith facts.check('deadly'): os.abort()\n"
HANGS = BEGIN + "with facts.check('fine'): pass\nwith facts.check('endless'): time.sleep(600)\n"
LACKS = BEGIN + "with facts.check('graphs'): raise NotRunError('no GPU is here')\nwith facts.check('files'): pass\n"
BENCHES = BEGIN + "with facts.check('bench'): facts.bench(json.loads(sys.argv[1]))\n"


def step(name, program, *arguments, seconds=60):
    return Step(name, (sys.executable, "-c", program, *arguments), seconds)


def test_every_step_is_run_and_the_file_holds_all_that_was_found(tmp_path, capfd):
    steps = [
        step("passes", PASSES),
        step("fails", FAILS),
        step("crashes", CRASHES),
        step("hangs", HANGS, seconds=1),
        step("lacks", LACKS),
        step("silent", "print('nothing')"),
        step("exits", PASSES + "sys.exit(4)"),
    ]
    path = tmp_path / "results.json"
    assert run_steps(steps, path) == FAILED
    found = json.loads(path.read_text())
    assert [(part["name"], part["outcome"], part["reason"]) for part in found["parts"]] == [
        ("passes", "passed", ""),
        ("fails", "failed", "1 of 2 checks"),
        ("crashes", "failed", "ended by SIGABRT"),
        ("hangs", "failed", "ended after 1 s, its limit"),
        ("lacks", "not all run", "1 of 2 checks could not be run here"),
        ("silent", "failed", "checked nothing"),
        ("exits", "failed", "ended with exit code 4"),
    ]
    checks = {part["name"]: part["checks"] for part in found["parts"]}
    assert checks["passes"]["sum"]["measured"] == {"value": "nan"}
    assert checks["fails"]["first"]["reason"] == "AssertionError: sums differ"
    assert checks["fails"]["second"]["outcome"] == checks["crashes"]["fine"]["outcome"] == "passed"
    assert checks["crashes"]["deadly"] == {"outcome": "failed", "reason": "ended before its result"}
    assert checks["lacks"]["graphs"]["reason"] == "no GPU is here"
    assert found["environment"]["processor"]
    assert "nothing" in found["parts"][5]["log"]
    out = capfd.readouterr().out
    assert "== 3 of 7: crashes" in out
    assert "lacks: not all run in" in out


@pytest.mark.parametrize(("program", "code"), [(PASSES, PASSED), (LACKS, NOT_ALL_RUN)])
def test_the_exit_code_says_whether_all_was_run(tmp_path, program, code):
    assert run_steps([step("a", PASSES), step("b", program)], tmp_path / "results.json") == code


def test_steps_for_which_no_time_is_left_are_named(tmp_path):
    path = tmp_path / "results.json"
    assert run_steps([step("hangs", HANGS), step("late", PASSES)], path, seconds=2) == FAILED
    late = json.loads(path.read_text())["parts"][1]
    assert (late["outcome"], late["reason"]) == ("not all run", "no time was left")


def test_a_run_that_is_interrupted_leaves_the_results_of_the_steps_before(tmp_path, monkeypatch):
    path, started = tmp_path / "results.json", []

    def interrupted(process, seconds):
        started.append(process)
        if len(started) == 2:
            raise KeyboardInterrupt
        return bool(process.wait())

    monkeypatch.setattr("gpu.steps._ended_late", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_steps([step("passes", PASSES), step("hangs", HANGS)], path)
    assert [part["name"] for part in json.loads(path.read_text())["parts"]] == ["passes"]
    assert started[1].wait(60) == -signal.SIGKILL


def test_what_a_step_leaves_running_does_not_keep_the_run_from_ending(tmp_path):
    before = {*threading.enumerate()}
    leaves = PASSES + "import subprocess; subprocess.Popen(['sleep', '60'])"  # with the step's output
    assert run_steps([step("leaves", leaves)], tmp_path / "results.json") == PASSED
    assert {*threading.enumerate()} <= before


def test_results_of_two_runs_are_compared(tmp_path, cli):
    for name, milliseconds in (("old", [4, 4.1, 4.2, 4.0, 4.1, 4.2]), ("new", [5, 5.1, 5.2, 5.0, 5.1, 5.2])):
        document = json.dumps(report([row("torch", milliseconds), row("tensorrt", 2, precision="fp16")]).to_dict())
        assert run_steps([step("bench", BENCHES, document)], tmp_path / f"{name}.json") == PASSED
    code, out, err = cli("bench", "--compare", tmp_path / "old.json", tmp_path / "new.json")
    assert (code, err) == (1, "")
    assert "1 slower of 2" in out
    write_json(tmp_path / "document.json", json.loads(document))
    code, out, _ = cli("bench", "--compare", tmp_path / "new.json", tmp_path / "document.json")
    assert code == 0
    assert "no row changed of 2" in out


def test_the_parts_of_test_gpu_are_the_files_of_tests_on_a_gpu(tmp_path):
    files = [Path(step.command[-1]) for step in parts(str(tmp_path))]
    assert sorted(files) == sorted(files[0].parent.glob("test_*.py"))
    assert len(files) == 4


def test_the_bench_takes_no_elastic_engine(tmp_path, monkeypatch):
    """`digits.onnx` is static, and a bench of both is refused."""
    monkeypatch.setattr("evodeploy.exporter.pipeline.export", lambda checkpoint, onnx, elastic: onnx.touch())
    monkeypatch.setattr("evodeploy.builder.pipeline.build", lambda onnx, plan, **how: plan.touch())
    onnx, plan = built_elastic(tmp_path / "digits.pth", "tensorrt")
    assert onnx.exists() and plan.exists()
    assert list(tmp_path.glob("*.engine")) == []  # what gpu/test_bench.py takes


def test_onnxruntime_on_tensorrt_is_not_run_where_tensorrt_is_missing(monkeypatch):
    """`make test-gpu TENSORRT=tensorrt-rtx,cuda` installs none, and onnxruntime-gpu has the provider in any case."""
    from gpu.test_onnxruntime import test_onnxruntime_on_the_gpu as check

    providers = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: providers)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(pytest.skip.Exception, match="TensorRT, whose libraries"):
        check((None, Path("none.onnx")), "onnxruntime-tensorrt")


@pytest.mark.parametrize(
    ("here", "precision", "reason"),
    [
        ("sm90", "fp16", "does not build for the GPU here (sm90)"),
        ("sm75", "fp32", "builds no FP32 engine for sm75"),
        ("sm75", "fp16", ""),
    ],
)
def test_what_cannot_be_built_for_the_gpu_here_is_not_run(monkeypatch, here, precision, reason):
    """It is no failure: `make test-gpu` installs TensorRT for RTX on an H100 too."""
    monkeypatch.setattr(flavour, "driver_problem", lambda: None)
    monkeypatch.setattr(flavour, "architecture", lambda: here)
    said = building_problem("tensorrt-rtx", precision)
    assert reason in said if reason else said == ""
