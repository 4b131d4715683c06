"""The acceptance run with the shim in place of the driver: what needs a real GPU is not run, and never passes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest
from cuda_shim.plans import write_exact, write_plan
from gpu import elastic_step, prepare, rtx_step
from gpu.accept import main, steps_of
from gpu.facts import NotRunError
from gpu.prepare import joined, pack
from gpu.runner_step import OWN, SHARED
from gpu.steps import NOT_ALL_RUN, PASSED, Step, run_steps
from torch.autograd import DeviceType

from evodeploy.benchmark.report.reading import read_benches
from evodeploy.engines.tensorrt import runner

ACCEPT = Path(__file__).parent / "gpu" / "accept.py"
NEED_A_GPU = {"next_to_torch", "torch_in_its_default_stream_while_recording", "torch_out_of_memory_while_recording",
              "illegal_address", "resident_clock"}  # fmt: skip


@pytest.fixture
def accept(libraries, tmp_path):
    """Run accept.py on the shim: its exit code, and the parts of its file by name."""
    pycuda, folder = libraries

    def run(*arguments):
        path = tmp_path / "results.json"
        command = [sys.executable, ACCEPT, "--output", path, "--pycuda", pycuda, "--minutes", "30", *arguments]
        environment = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
        done = subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True, timeout=600)
        found = json.loads(path.read_text())
        return done.returncode, {part["name"]: part for part in found["parts"]}, done.stdout

    return run


def test_a_case_passes_or_is_not_run(accept):
    code, parts, out = accept("--steps", "runner", "--cases", "out_of_memory_while_recording,illegal_address")
    checks = parts["runner"]["checks"]
    outcomes = {name: check["outcome"] for name, check in checks.items()}
    assert outcomes == {"driver": "passed", "out_of_memory_while_recording": "passed", "illegal_address": "not run"}
    assert "uses a wrong address" in checks["illegal_address"]["reason"]
    assert code == NOT_ALL_RUN, out


@pytest.fixture
def played(libraries, tmp_path):
    """Run cases as on a real driver, with kernels that are played on the shim; the outcome of each."""
    pycuda, folder = libraries

    def run(*cases):
        facts = tmp_path / "facts.json"
        paths = (ACCEPT.parents[2], ACCEPT.parents[1])
        environment = {
            **os.environ, "LD_LIBRARY_PATH": str(folder), "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "EVODEPLOY_GPU_FACTS": str(facts),
        }  # fmt: skip
        command = [sys.executable, ACCEPT.with_name("runner_step.py"), "--pycuda", pycuda, "--cases", ",".join(cases),
                   "--program", "on_played_driver.py"]  # fmt: skip
        subprocess.run([*map(str, command)], env=environment, check=True, timeout=600)
        checks = json.loads(facts.read_text())["checks"]
        return {name: check["outcome"] for name, check in checks.items()}

    return run


def test_kernels_are_launched_on_the_streams_and_addresses_of_a_lane(played):
    assert set(played("half_precision", "graphs").values()) == {"passed"}


@pytest.mark.slow
def test_every_case_runs_as_on_a_real_driver(played):
    cases = {*SHARED, *OWN} - NEED_A_GPU
    assert played(*cases) == {"driver": "passed", **dict.fromkeys(cases, "passed")}


@pytest.mark.slow
def test_all_of_it_on_the_shim(accept):
    code, parts, out = accept()
    assert code == NOT_ALL_RUN, out
    runner = {name: check["outcome"] for name, check in parts["runner"]["checks"].items()}
    assert runner == {
        "driver": "passed", **{name: "not run" if name in NEED_A_GPU else "passed" for name in {*SHARED, *OWN}}
    }  # fmt: skip
    assert parts["runner"]["checks"]["memory"]["measured"]["bytes_after_32"] > 0
    for name in ("clock", "nvml", "lean", "rtx", "torch", "elastic", "evo_over_dense"):
        assert parts[name]["outcome"] == "not all run", parts[name]
        assert "failed" not in {check["outcome"] for check in parts[name]["checks"].values()}


@pytest.mark.slow
def test_the_step_of_pytorch_works_on_the_cpu_too(tmp_path):
    path = tmp_path / "results.json"
    options = ("--anywhere", "--engines", "torch", "--batches", "1,2", "--seconds", "0", "--threads", "1")
    command = (sys.executable, str(ACCEPT.with_name("torch_step.py")), *options, "--limit", "600")
    code = run_steps([Step("torch", command, 900, {"OMP_NUM_THREADS": "1"})], path)
    found = json.loads(path.read_text())
    outcomes = {name: check["outcome"] for name, check in found["parts"][0]["checks"].items()}
    cuda = outcomes.pop("torch_has_cuda")
    assert outcomes == dict.fromkeys(("export", "verify", "bench_runs_nothing_eagerly"), "passed")
    assert code == (PASSED if cuda == "passed" else NOT_ALL_RUN)
    assert {row["model"] for row in read_benches(path)[0]["results"]} == {"evo", "dense"}


@pytest.mark.slow
def test_the_step_of_elastic_engines_works_in_pytorch_on_the_cpu_too(tmp_path):
    path = tmp_path / "results.json"
    command = (sys.executable, str(ACCEPT.with_name("elastic_step.py")), "--anywhere", "--model", "EvoLeViT_128S")
    run_steps([Step("elastic", command, 600)], path)
    checks = json.loads(path.read_text())["parts"][0]["checks"]
    found = checks["an_elastic_network_in_pytorch"]
    assert found["outcome"] == "passed", found
    assert list(found["measured"]) == ["0.1", "0.3", "0.5", "0.7", "1"]
    assert all(row["largest_difference"] < 1e-4 for row in found["measured"].values())
    assert {check["outcome"] for check in checks.values()} <= {"passed", "not run"}


@pytest.mark.slow
def test_kernels_of_elastic_and_static_engines_are_counted(tmp_path):
    kernels = elastic_step.kernels_of(elastic_step.built("tensorrt-rtx", tmp_path, ("sm89",)))
    assert set(kernels) == {"elastic", *map(str, elastic_step.BUILT)} and min(kernels.values()) > 50


def test_kernels_that_pytorch_launches_are_counted_once():
    events = [
        ("cudaLaunchKernel", DeviceType.CPU),
        ("gemm", DeviceType.CUDA),
        ("Memcpy DtoH (Device -> Pageable)", DeviceType.CUDA),
        ("cudaStreamSynchronize", DeviceType.CPU),
        ("Memset (Device)", DeviceType.CUDA),
    ]
    found = [name for name, kind in events if elastic_step.is_kernel(SimpleNamespace(name=name, device_type=kind))]
    assert found == ["gemm"]


def test_an_engine_that_is_refused_for_another_reason_than_its_gpu_is_a_failure(tmp_path, monkeypatch):
    onnx = write_exact(tmp_path / "exact.onnx")
    plan = write_plan(tmp_path / "sm80.engine", onnx, runtime="tensorrt-rtx", targets=("sm80",))
    with monkeypatch.context() as patched, pytest.raises(NotRunError, match=r"pycuda .* is not here"):
        patched.setitem(sys.modules, "pycuda", None)
        rtx_step.refusal(plan)
    monkeypatch.setattr(rtx_step, "need_pycuda", lambda: None)
    monkeypatch.setattr(runner, "driver_problem", lambda: "no NVIDIA driver")
    with pytest.raises(AssertionError, match="runs on an NVIDIA GPU only, and here no NVIDIA driver"):
        rtx_step.refusal(plan)


def test_every_step_finds_pycuda(tmp_path, monkeypatch):
    found = []
    monkeypatch.setenv("PYTHONPATH", "before")
    monkeypatch.setattr("sys.argv", ["accept.py", "--steps", "elastic", "--pycuda", str(tmp_path)])
    monkeypatch.setattr("gpu.accept.run_steps", lambda *_: found.extend(os.environ["PYTHONPATH"].split(os.pathsep)))
    main()
    assert found[-2:] == [str(tmp_path), "before"]


def test_without_a_driver_nothing_is_run(libraries, tmp_path):
    path = tmp_path / "results.json"
    command = [sys.executable, str(ACCEPT), "--output", str(path), "--steps", "runner", "--pycuda", str(libraries[0])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == NOT_ALL_RUN, done.stdout
    (part,) = json.loads(path.read_text())["parts"]
    assert "no NVIDIA driver is installed" in part["checks"]["driver"]["reason"]


def test_steps_find_what_is_named_in_the_folder_of_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = Namespace(pycuda=None, wheels=Path("parts"), cases=None)
    (step,) = steps_of(["runner"], named, tmp_path / "work", 0)
    assert step.command[-2:] == ("--source", str(tmp_path / "parts"))
    (step,) = steps_of(["clock"], Namespace(pycuda=Path("built"), wheels=None, cases=None), tmp_path, 0)
    assert step.command[-4:-2] == ("--pycuda", str(tmp_path / "built"))


def test_a_download_that_fails_is_one_sentence(tmp_path, monkeypatch):
    def run(command, check):
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(prepare.subprocess, "run", run)
    monkeypatch.setattr("sys.argv", ["prepare.py", str(tmp_path / "bundle")])
    with pytest.raises(SystemExit, match=r"pycuda==2026.1` failed, see above: run this script with .venv/bin/python"):
        prepare.main()
    assert list(tmp_path.iterdir()) == []


def test_files_are_packed_into_parts_that_fit_and_put_together_again(tmp_path):
    sizes = {"evodeploy.tar.gz": 30, "small-1-py3-none-any.whl": 50, "large-1-py3-none-any.whl": 230}
    for name, size in sizes.items():
        (tmp_path / name).write_bytes(bytes(index % 251 for index in range(size)))
    parts = pack([tmp_path / name for name in sizes], tmp_path / "parts", most=100)
    assert [part.name for part in parts] == ["part1", "part2", "part3", "part4"]
    assert all(sum(file.stat().st_size for file in part.iterdir()) <= 100 for part in parts)
    whole = tmp_path / "whole"
    whole.mkdir()
    wheels = {wheel.name: wheel.read_bytes() for wheel in joined(tmp_path / "parts", whole)}
    assert wheels == {name: (tmp_path / name).read_bytes() for name in sizes if name.endswith(".whl")}
    next((tmp_path / "parts").rglob("*.piece2of3")).unlink()
    assert [wheel.name for wheel in joined(tmp_path / "parts", whole)] == ["small-1-py3-none-any.whl"]
