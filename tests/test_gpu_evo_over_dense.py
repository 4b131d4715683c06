"""benchmarks/gpu_evo_over_dense.py on the CPU, with a model small enough."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import time

import gpu_evo_over_dense as script
import pytest

from evodeploy.benchmark.report.reading import read_benches
from evodeploy.benchmark.subject import Subject
from evodeploy.engines.torch_engine import TorchEngine
from evodeploy.models.zoo import ZOO

QUICK = script.Settings(models=("small",), batches=(1, 2), engine="torch", precision="fp32", seconds=0.0, threads=1)


@pytest.fixture
def of_small(monkeypatch, small):
    """The small model in place of every published one."""
    monkeypatch.setattr(
        script, "subject_of", lambda paths, name: Subject(name, small.info, small, "", (), (), ("random weights",))
    )


def test_a_model_is_measured_against_its_twin_and_written_after_each_batch_size(of_small, tmp_path, capsys):
    path, sizes = tmp_path / "results" / "evo.json", []
    for document in script.measured(dataclasses.replace(QUICK, models=("a", "b"))):
        script.write(path, [document])
        sizes.append((document["model"]["name"], len(read_benches(path)[0]["results"])))
    assert sizes == [("a", 2), ("a", 4), ("b", 2), ("b", 4)]
    lines = list(script.table(read_benches(path)))
    assert len(lines) == 2 + 2
    assert lines[2].startswith("| b | 1 | none | ")
    assert "WRONG" not in "".join(lines)
    assert capsys.readouterr().err == ""


def test_what_does_not_fit_in_the_time_is_left_out_and_said(of_small, capsys):
    assert list(script.measured(dataclasses.replace(QUICK, end=time.time() - 1))) == []
    assert "left out for want of time: small from batch 1 on" in capsys.readouterr().err


def test_the_command_writes_a_file_and_prints_the_table(of_small, tmp_path, monkeypatch, capsys):
    path = tmp_path / "evo.json"
    options = ["-o", path, "--models", "small", "--batches", 1, "--engine", "torch", "--precision", "fp32"]
    monkeypatch.setattr("sys.argv", ["script", *map(str, options), "--seconds", "0", "--jobs", "0", "--threads", "1"])
    script.main()
    assert json.loads(path.read_text())["benches"][0]["model"]["name"] == "small"
    assert "| small | 1 | none |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--batches", "1,x"), "'1,x' is no list of batch sizes, expected some such as 1,8,32"),
        (("--batches", "0"), "'0' is no list of batch sizes"),
        (("--models", "foo"), "no model is called 'foo'"),
        (("--models", "EvoLeViT_128S", "--engine", "foo"), "no engine is called 'foo'"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_sentence(tmp_path, monkeypatch, capsys, options, sentence):
    monkeypatch.setattr("sys.argv", ["script", "-o", str(tmp_path / "evo.json"), "--jobs", "0", *options])
    with pytest.raises(SystemExit) as raised:
        script.main()
    assert raised.value.code == 2
    assert sentence in capsys.readouterr().err.splitlines()[-1]


def test_other_processes_compile_each_batch_size_of_each_role_first(of_small, monkeypatch):
    commands = []

    def run(command, **options):
        commands.append(command)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(script.subprocess, "run", run)
    assert len(list(script.measured(dataclasses.replace(QUICK, jobs=2)))) == 2
    compiling = [command[2:] for command in commands if "--compile" in command]
    assert sorted((given[1], given[5]) for given in compiling) == [
        ("dense", "1"), ("dense", "2"), ("evo", "1"), ("evo", "2"),
    ]  # fmt: skip


def test_compile_one_runs_the_role_that_it_is_given(of_small, monkeypatch):
    runs = []
    run = TorchEngine.run
    monkeypatch.setattr(TorchEngine, "run", lambda engine, images: runs.append(len(images)) or run(engine, images))
    script.compile_one(QUICK, "dense")
    assert runs == [1, 2]


def test_the_models_are_published_ones():
    assert set(script.MODELS) <= set(ZOO)
