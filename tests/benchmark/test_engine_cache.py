"""What is built once, and when it is built again."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from benchmark.fakes import RECORD
from graphs import retrained, sharded
from sharing import in_threads

from evodeploy.benchmark import engine_cache
from evodeploy.benchmark.engine_cache import cached_build, key_of, usual_folder
from evodeploy.builder.options import BuilderOptions
from evodeploy.builder.request import BuildRequest
from evodeploy.engines.tensorrt.flavour import Flavour
from evodeploy.engines.tensorrt.sidecar import read_sidecar, sidecar_path, write_sidecar
from evodeploy.errors import BadFileError, RuntimeFailedError, UsageError
from evodeploy.files import replacing, sha256
from evodeploy.locks import locked


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache" / "engines"


@pytest.fixture
def request_of(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"a network")

    def request(**changes):
        return BuildRequest(
            **({"onnx": tmp_path / "m.onnx", "output": tmp_path / "m.engine", "precision": "fp16"} | changes)
        )

    return request


@pytest.fixture
def built(monkeypatch):
    """The requests that reached the builder, which is played: a plan is a line of what was asked for."""
    requests = []

    def build(request):
        requests.append(request)
        with replacing(request.output) as draft:
            draft.write_text(f"{request.precision} {request.profiles}")
        record = dataclasses.replace(RECORD, precision=request.precision or "fp32", plan_sha256=sha256(request.output))
        write_sidecar(record, request.output)
        return record

    monkeypatch.setattr(engine_cache, "build_engine", build)
    monkeypatch.setattr(engine_cache, "load_flavour", lambda name: tensorrt("10.13.0.35", name or "tensorrt"))
    return requests


def tensorrt(version, name="tensorrt"):
    return Flavour(name, SimpleNamespace(__version__=version))


def entries(folder):
    return sorted(path.name.split(".", 1)[1] for path in folder.iterdir())


def test_the_second_bench_takes_what_the_first_built(folder, request_of, built, logged):
    for output in ("a.engine", "b.engine"):
        record = cached_build(request_of(output=folder.parent.parent / output), folder)
        plan = folder.parent.parent / output
        assert read_sidecar(plan) == record
        assert sha256(plan) == record.plan_sha256
    assert len(built) == 1
    assert list(logged) == [f"using the FP16 engine of m.onnx from {folder}"]
    assert entries(folder) == ["engine", "engine.json"]
    assert folder.stat().st_mode & 0o077 == 0  # an engine runs code when it is opened


def test_everything_that_shapes_an_engine_is_in_its_key(request_of, tmp_path, monkeypatch):
    (tmp_path / "other.onnx").write_bytes(b"another network")
    (tmp_path / "copy.onnx").write_bytes(b"a network")
    ten = tensorrt("10.13.0.35")
    variants = [
        (request_of(), ten, "sm89 L4"),
        (request_of(onnx=tmp_path / "other.onnx"), ten, "sm89 L4"),
        (request_of(precision="fp32"), ten, "sm89 L4"),
        (request_of(profiles=((1, 1, 1),)), ten, "sm89 L4"),
        (request_of(profiles=((1, 1, 1), (2, 8, 8))), ten, "sm89 L4"),
        (request_of(targets=("sm89",)), ten, "sm89 L4"),
        (request_of(keep_fp32=("Softmax",)), ten, "sm89 L4"),
        (request_of(options=BuilderOptions(tf32=False)), ten, "sm89 L4"),
        (request_of(options=BuilderOptions(workspace=1 << 30)), ten, "sm89 L4"),
        (request_of(), tensorrt("10.13.0.36"), "sm89 L4"),
        (request_of(), tensorrt("10.13.0.35", "tensorrt-rtx"), "sm89 L4"),
        (request_of(), ten, "sm89 L40S"),
        (request_of(), ten, "sm90 L4"),
    ]
    keys = [key_of(*variant) for variant in variants]
    assert len(set(keys)) == len(variants)
    assert key_of(request_of(onnx=tmp_path / "copy.onnx", output=tmp_path / "x.engine"), ten, "sm89 L4") == keys[0]
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")  # which TensorRT's builder obeys
    assert key_of(*variants[0]) not in keys
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE")
    monkeypatch.setattr(engine_cache, "__version__", "next")
    assert key_of(*variants[0]) not in keys


def test_weights_in_another_file_are_in_the_key_too(small_onnx, request_of, tmp_path):
    path, weights = sharded(small_onnx, tmp_path)
    before = key_of(request_of(onnx=path), tensorrt("10.13.0.35"), "sm89 L4")
    retrained(weights)
    assert key_of(request_of(onnx=path), tensorrt("10.13.0.35"), "sm89 L4") != before


def test_the_engines_of_another_tensorrt_or_gpu_are_not_taken(folder, request_of, built, monkeypatch):
    cached_build(request_of(), folder)
    monkeypatch.setattr(engine_cache, "driver_problem", lambda: None)
    monkeypatch.setattr(engine_cache, "architecture", lambda: "sm89")
    monkeypatch.setattr(engine_cache, "gpu_name", lambda: "NVIDIA L4")
    cached_build(request_of(), folder)
    monkeypatch.setattr(engine_cache, "load_flavour", lambda name: tensorrt("11.0.0.1"))
    for _ in range(2):
        cached_build(request_of(), folder)
    assert len(built) == 3
    assert len(entries(folder)) == 6


@pytest.mark.parametrize("damage", ["cut", "no record", "bad record", "no plan"])
def test_a_damaged_entry_is_built_again(folder, request_of, built, damage):
    cached_build(request_of(), folder)
    plan = next(folder.glob("*.engine"))
    {
        "cut": lambda: plan.write_bytes(plan.read_bytes()[:-1]),
        "no record": lambda: sidecar_path(plan).unlink(),
        "bad record": lambda: sidecar_path(plan).write_text("{"),
        "no plan": plan.unlink,
    }[damage]()
    record = cached_build(request_of(), folder)
    assert len(built) == 2
    assert sha256(request_of().output) == record.plan_sha256 == sha256(plan)


def test_a_build_that_fails_leaves_nothing(folder, request_of, built, monkeypatch):
    def fail(request):
        raise RuntimeFailedError("no kernel")

    monkeypatch.setattr(engine_cache, "build_engine", fail)
    with pytest.raises(RuntimeFailedError, match="no kernel"):
        cached_build(request_of(), folder)
    assert list(folder.iterdir()) == []
    assert not request_of().output.exists()


def test_of_an_onnx_that_is_replaced_during_the_build_no_engine_is_kept(folder, request_of, built, monkeypatch):
    """It would be taken for one of the file as it was."""
    build = engine_cache.build_engine

    def replacing_it(request):
        request.onnx.write_bytes(b"another network")
        return build(request)

    monkeypatch.setattr(engine_cache, "build_engine", replacing_it)
    with pytest.raises(BadFileError, match="m.onnx was replaced while an engine was built from it"):
        cached_build(request_of(), folder)
    assert list(folder.iterdir()) == []


def test_two_that_want_the_same_engine_build_it_once(folder, request_of, built, monkeypatch):
    build, lock = engine_cache.build_engine, engine_cache.locked
    arrived = threading.Semaphore(0)

    def slow(request):
        for _ in range(2):
            assert arrived.acquire(timeout=60)  # until the other waits for the lock
        return build(request)

    def heard(path, **options):
        if options:
            arrived.release()
        return lock(path, **options)

    monkeypatch.setattr(engine_cache, "build_engine", slow)
    monkeypatch.setattr(engine_cache, "locked", heard)
    outputs = [folder.parent.parent / name for name in ("a.engine", "b.engine")]
    in_threads(lambda number: cached_build(request_of(output=outputs[number]), folder), 2)
    assert len(built) == 1
    assert outputs[0].read_bytes() == outputs[1].read_bytes()


KILLED = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from evodeploy.benchmark import engine_cache
from evodeploy.builder.request import BuildRequest
from evodeploy.engines.tensorrt.flavour import Flavour
from evodeploy.files import replacing

def build(request):
    with replacing(request.output) as draft:
        draft.write_bytes(b"half of a pl")
        print("building", flush=True)
        time.sleep(600)

engine_cache.build_engine = build
engine_cache.load_flavour = lambda name: Flavour("tensorrt", SimpleNamespace(__version__="10.13.0.35"))
onnx, output, folder = map(Path, sys.argv[1:])
engine_cache.cached_build(BuildRequest(onnx, output, "fp16"), folder)
"""


def test_a_killed_build_is_begun_again_and_nothing_of_it_is_left(folder, request_of, built):
    mine = request_of()
    command = [sys.executable, "-c", KILLED, str(mine.onnx), str(mine.output), str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
    assert process.stdout.readline() == "building\n"
    (lock,) = folder.glob(".*.lock")
    with pytest.raises(BlockingIOError), locked(lock):
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert any("draft" in path.name for path in mine.output.parent.iterdir())
    record = cached_build(mine, folder)
    assert sha256(mine.output) == record.plan_sha256
    assert entries(folder) == ["engine", "engine.json"]
    assert not any("draft" in path.name for path in mine.output.parent.iterdir())


def test_beyond_its_limit_the_folder_loses_what_was_not_used_for_longest(folder, request_of, built):
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    draft = folder / f".{'0' * 64}.engine.evodeploy-draft"  # of a killed build
    draft.write_bytes(b"x" * 4000)
    os.utime(draft, (1, 1))
    plans = {}
    for number, precision in enumerate(("fp32", "fp16", "bf16")):
        cached_build(request_of(precision=precision), folder)
        plans[precision] = next(plan for plan in folder.glob("*.engine") if plan not in plans.values())
        for path in (plans[precision], sidecar_path(plans[precision])):
            os.utime(path, (number + 2, number + 2))
    size = sum(path.stat().st_size for path in folder.glob("[0-9a-f]*"))
    cached_build(request_of(precision="fp32"), folder, limit=size)
    assert (draft.exists(), len(built)) == (False, 3)
    with locked(engine_cache._lock(plans["fp16"])):  # in use
        cached_build(request_of(precision="fp32"), folder, limit=size // 3 * 2)
    assert {name for name, plan in plans.items() if plan.exists()} == {"fp32", "fp16"}
    assert (folder / "notes.txt").exists()


def test_an_entry_in_use_counts_and_another_goes_in_its_place(folder, request_of, built):
    plans = []
    for number, precision in enumerate(("fp32", "fp16")):
        cached_build(request_of(precision=precision), folder)
        plans.append(next(plan for plan in folder.glob("*.engine") if plan not in plans))
        for path in (plans[-1], sidecar_path(plans[-1])):
            os.utime(path, (number + 1, number + 1))
    size = sum(path.stat().st_size for path in (plans[0], sidecar_path(plans[0])))
    with locked(engine_cache._lock(plans[0])):
        engine_cache._shrink(folder, size)
    assert [plan.exists() for plan in plans] == [True, False]


def test_an_entry_that_another_process_removes_meanwhile_ends_nothing(folder, request_of, built, monkeypatch):
    cached_build(request_of(), folder)
    stat = Path.stat

    def stat_and_gone(path, **options):
        found = stat(path, **options)
        if path.name.endswith(".engine"):
            path.unlink()
        return found

    monkeypatch.setattr(Path, "stat", stat_and_gone)
    engine_cache._shrink(folder, 0)
    assert list(folder.glob("*.engine*")) == []


def test_where_engines_are_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert usual_folder() == tmp_path / "evodeploy" / "engines"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", "/somewhere")
    assert usual_folder() == Path("/somewhere/.cache/evodeploy/engines")


def test_a_folder_that_cannot_be_used_is_one_sentence(request_of, built, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"cannot use the engine cache .*file.*: .*; name another with --engine-cache"):
        cached_build(request_of(), tmp_path / "file" / "engines")


def test_tensorrt_for_rtx_builds_into_the_cache(small_onnx, folder, tmp_path, logged):
    asked = BuildRequest(small_onnx, tmp_path / "a.engine", "fp16", ((1, 1, 1),), "tensorrt-rtx", targets=("sm89",))
    first = cached_build(asked, folder)
    again = cached_build(dataclasses.replace(asked, output=tmp_path / "b.engine"), folder)
    assert first == again == read_sidecar(tmp_path / "b.engine")
    assert (first.targets, first.precision) == (("sm89",), "fp16")
    assert sum("building FP16" in line for line in logged) == 1
