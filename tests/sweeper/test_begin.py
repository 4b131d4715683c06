"""How a sweep takes its folder: what it removes with --force, what it never does, and what it refuses first."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from data_kinds import contents
from PIL import Image
from sharing import refused_in_thread

from evodeploy.errors import BadFileError, UsageError
from evodeploy.evaluation.journal import Journal
from evodeploy.sweeper import begin
from evodeploy.sweeper.begin import begun
from evodeploy.sweeper.request import SweepRequest
from evodeploy.sweeper.space import Candidate
from evodeploy.sweeper.state import State

FIRST = Candidate((1.0,), "fp32", "onnxruntime")
INT8 = Candidate((1.0,), "int8", "onnxruntime")


@pytest.fixture
def request_(small_checkpoint, tmp_path, monkeypatch):
    """A sweep whose checkpoint lies in its own folder, next to a photograph."""
    monkeypatch.chdir(tmp_path)
    Path("out").mkdir()
    shutil.copy(small_checkpoint, "out/ckpt.pth")
    Image.new("RGB", (9, 9)).save("out/photo.png")
    return SweepRequest(Path("out/ckpt.pth"), Path("out"), (FIRST,))


def swept(request):
    """As a sweep leaves its folder: a model, a result, and an evaluation that was interrupted."""
    with begun(request) as state:
        for name, content in {"models/keep-1.fp32.onnx": b"\x08\x08", "sweep.json": b'{"schema": 1}'}.items():
            with state.replacing(name) as draft:
                draft.write_bytes(content)
        with Journal(request.folder / "models/keep-1.fp32.onnx.onnxruntime.fp32.part", {"artefacts": []}).open():
            pass
        state.accuracies["keep 1"] = [0.5, 0.4, 0.6]
        state.write()


def test_force_removes_what_the_state_lists_and_nothing_else(request_):
    before = contents(Path())
    swept(request_)
    Path("out/models/mine.onnx").write_bytes(b"\x08\x08")
    with begun(request_, force=True) as state:
        assert (state.accuracies, state.files) == ({}, [])
        assert contents(Path("out/models")) == {"mine.onnx": b"\x08\x08"}
    assert before.items() <= contents(Path()).items()  # the checkpoint too
    assert not Path("out/sweep.json").exists()


def test_without_force_the_sweep_is_resumed(request_):
    swept(request_)
    before = contents(Path())
    with begun(request_) as state:
        assert state.accuracies == {"keep 1": [0.5, 0.4, 0.6]}
        assert state.files == ["models/keep-1.fp32.onnx", "sweep.json"]
        with state.replacing("sweep.json") as draft:  # which is its own
            draft.write_bytes(b'{"schema": 1}')
    assert contents(Path()) == before
    with pytest.raises(UsageError, match="is of another sweep"), begun(dataclasses.replace(request_, batch=9)):
        raise AssertionError("not reached")


@pytest.mark.parametrize("changed", ["processor", "openvino"])
def test_speeds_of_another_machine_or_runtime_are_measured_again(request_, monkeypatch, logged, changed):
    here = {"processor": "a CPU", "openvino": "2026.4"}
    monkeypatch.setattr(begin, "processor_name", lambda: here["processor"])
    monkeypatch.setattr(begin, "package_versions", lambda names: {"openvino": here["openvino"]})
    monkeypatch.setattr(begin, "gpus", lambda: [SimpleNamespace(name="NVIDIA A100-SXM4-40GB")] * 16)
    with begun(request_) as state:
        state.failures["keep 0.5"] = "the runtime has no such operator"
        state.accuracies["keep 1"], state.speeds["keep 1"], state.reference = [0.5, 0.4, 0.6], [[1.0, 0.9, 1.1]], [2.0]
        state.write()
    with begun(request_) as state:
        assert (state.speeds, state.reference) == ({"keep 1": [[1.0, 0.9, 1.1]]}, [2.0])
        assert state.failures
    assert not logged
    here[changed] = "another"
    with begun(request_) as state:
        assert (state.accuracies, state.speeds, state.reference) == ({"keep 1": [0.5, 0.4, 0.6]}, {}, [])
        assert not state.failures
        state.write()
    assert len(logged) == 1 and f"({changed} changed)" in logged[0]
    with begun(request_):  # which is this machine's now
        pass
    assert len(logged) == 1


def test_speeds_of_a_state_that_names_no_machine_are_measured_again(request_):
    with begun(request_) as state:
        before = State(state.path, state.task, speeds={"keep 1": [[1.0, 0.9, 1.1]]}, reference=[2.0])
        before.write()
    document = json.loads(Path("out/state.json").read_text())
    del document["machine"]
    Path("out/state.json").write_text(json.dumps(document))
    with begun(request_) as state:
        assert (state.speeds, state.reference) == ({}, [])


def test_a_file_next_to_the_checkpoint_makes_it_another_sweep(request_):
    checkpoint = Path("out/ckpt.pth").rename("out/pytorch_model.bin")
    request = dataclasses.replace(request_, checkpoint=checkpoint)
    swept(request)
    Path("out/preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5]}')
    with pytest.raises(UsageError, match="is of another sweep"), begun(request):
        raise AssertionError("not reached")


def expect_another_sweep(request, change, what):
    """Sweep, then `change` the images, and expect that the sweep is not resumed because of `what`."""
    swept(request)
    with begun(request):
        pass
    change()
    with pytest.raises(UsageError, match=rf"of another sweep \({what} changed\): .*--force"), begun(request):
        raise AssertionError("not reached")


@pytest.mark.parametrize("change", ["more", "moved", "replaced"])
def test_other_labelled_images_make_it_another_sweep(request_, change):
    for index in range(10):
        Path("data", f"c{index}").mkdir(parents=True)
    picture = Path("data/c3/a.png")
    Image.new("RGB", (9, 9)).save(picture)
    alter = {
        "more": lambda: shutil.copy(picture, "data/c3/b.png"),
        "moved": lambda: picture.rename("data/c4/a.png"),
        "replaced": lambda: Image.new("RGB", (99, 9)).save(picture),
    }
    expect_another_sweep(dataclasses.replace(request_, data=Path("data")), alter[change], "labelled images")


@pytest.mark.parametrize("name", ["a.png", "b.png"])
def test_other_images_to_calibrate_on_make_it_another_sweep(request_, name):
    Path("data").mkdir()
    Image.new("RGB", (9, 9)).save("data/a.png")
    request = dataclasses.replace(request_, candidates=(FIRST, INT8), images=Path("data"))
    expect_another_sweep(request, lambda: Image.new("RGB", (99, 9)).save(f"data/{name}"), "calibration images")


@pytest.mark.parametrize("force", [False, True])
def test_names_that_are_not_utf8_do_not_lock_the_folder(request_, force):
    data = Path("data\udcff")
    for index in range(10):
        (data / f"c{index}").mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(data / "c3/a.png")
    request = dataclasses.replace(request_, candidates=(FIRST, INT8), data=data, images=data)
    swept(request)
    with begun(request) as state:
        state.failures["keep 1"] = "\udcff.onnx is damaged"
        state.write()
    with begun(request, force) as state:
        assert state.failures == ({} if force else {"keep 1": r"\udcff.onnx is damaged"})


STATE = {
    "schema": 1, "task": {"checkpoint": "x", "reference": "y"}, "accuracies": {}, "speeds": {}, "failures": {},
    "reference": [],
}  # fmt: skip


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    "stray",
    [
        {"name": "of another program"},
        {"schema": 1, "reducers": []},
        {**STATE, "files": ["photo.png"]},
        {**STATE, "files": ["../precious.onnx"]},
        {**STATE, "files": ["models/../ckpt.pth"]},
        {**STATE, "files": ["/etc/passwd"]},
        {**STATE, "files": "sweep.json"},
    ],
)
def test_a_stray_state_loses_nothing(request_, stray, force):
    Path("precious.onnx").write_bytes(b"\x08\x08")
    Path("out/state.json").write_text(json.dumps(stray))
    before = contents(Path())
    with pytest.raises((UsageError, BadFileError), match=r"state\.json is not (a|the)"), begun(request_, force):
        raise AssertionError("not reached")
    assert contents(Path()) == before


@pytest.mark.parametrize(
    "changes",
    [
        {"candidates": (INT8,)},
        {"by_stage": (1.0, 0.5)},
        {"checkpoint": Path("none.pth")},
        {"data": Path("none")},
        {"data": Path("out")},
        {"data": Path()},
        {"images": Path("none")},
        {"data": Path("out"), "labels": Path("none.csv")},
    ],
)
def test_a_bad_request_loses_nothing(request_, changes):
    swept(request_)
    before = contents(Path())
    with pytest.raises(UsageError), begun(dataclasses.replace(request_, **changes), force=True):
        raise AssertionError("not reached")
    assert contents(Path()) == before


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("name", ["sweep.json", "front.svg", "chosen.onnx", "models/mine.onnx"])
def test_results_of_others_are_not_replaced(request_, name, force):
    path = Path("out", name)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"theirs")
    before = contents(Path())
    with pytest.raises(UsageError, match="already exists"), begun(request_, force):
        raise AssertionError("not reached")
    assert contents(Path()) == before


def test_links_are_not_followed_when_clearing(request_, tmp_path):
    swept(request_)
    Path("elsewhere").mkdir()
    for path in Path("out/models").iterdir():
        path.rename(Path("elsewhere", path.name))
    Path("out/models").rmdir()
    Path("out/models").symlink_to(tmp_path / "elsewhere")
    before = contents(Path())
    with pytest.raises(UsageError, match="is not a folder of a sweep's models"), begun(request_, force=True):
        raise AssertionError("not reached")
    assert contents(Path()) == before


def test_the_second_of_two_sweeps_is_refused(request_):
    def second():
        with begun(request_):
            pass

    with begun(request_):
        assert "another run is writing" in refused_in_thread(second)


def test_a_refused_sweep_leaves_no_folder(request_):
    with pytest.raises(UsageError), begun(dataclasses.replace(request_, folder=Path("new"), candidates=(INT8,))):
        raise AssertionError("not reached")
    with begun(dataclasses.replace(request_, folder=Path("new"))):
        pass
    assert not Path("new").exists()


def test_bad_options_of_the_command_lose_nothing(cli, request_):
    swept(request_)
    before = contents(Path())
    arguments = ("sweep", "out/ckpt.pth", "-o", "out", "--engines", "onnxruntime", "--force")
    for bad in (("--data", "none"), ("--keep", "2"), ("--engines", "nope"), ("--precisions", "int8"), ("--by-stage",)):
        assert cli(*arguments, *bad)[0] == 2, bad
    assert contents(Path()) == before
