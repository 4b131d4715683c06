"""Evaluations of real artefacts, their networks untrained: what is right is what the first one says."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from cases import SMALL
from data_kinds import pictures_by_answer
from fake_engines import FakeEngine, brightness_logits
from not_finite import nan_where_dark
from onnx import numpy_helper
from PIL import Image
from reference_pages import check_fields
from sharing import refused_in_thread

import evodeploy
from evodeploy.engines.opener import open_engine
from evodeploy.errors import UsageError
from evodeploy.evaluation import pipeline
from evodeploy.exporter.to_onnx import onnx_from_model
from evodeploy.graph.precision import reduced_from_onnx
from evodeploy.models.checkpoint import load_checkpoint
from evodeploy.models.loaded import with_interface
from evodeploy.models.random_weights import random_model
from evodeploy.models.saving import save_checkpoint
from evodeploy.onnx_files import info_of, read_onnx, write_onnx

COUNT = 40


@pytest.fixture(scope="module")
def folder(small, small_onnx, tmp_path_factory):
    """Pictures in the folder of the class that the small model gives them, four of them wrongly; and artefacts."""
    home = tmp_path_factory.mktemp("eval")
    pictures_by_answer(small_onnx, home, COUNT, wrong=10)
    (home / "data" / "c0" / "broken.png").write_bytes(b"no image")
    write_onnx(read_onnx(small_onnx), home / "a.onnx")
    write_onnx(reduced_from_onnx(read_onnx(small_onnx), "fp16").model, home / "half.onnx")
    write_onnx(onnx_from_model(with_interface(small, "uint8", 3)), home / "bytes.onnx")
    write_onnx(onnx_from_model(random_model(SMALL, seed=11)), home / "other.onnx")
    return home


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    for path in folder.glob("r.json*"):
        path.unlink()
    return folder


def test_a_checkpoint_has_the_class_names_that_its_export_was_given(cli, here, small, tmp_path):
    own, stated = tuple("abcdefghij"), tuple(f"c{index}" for index in range(10))
    checkpoint, export = tmp_path / "own.pth", tmp_path / "stated.onnx"
    save_checkpoint(dataclasses.replace(small, info=dataclasses.replace(small.info, class_names=own)), checkpoint)
    loaded = load_checkpoint(checkpoint)
    info = dataclasses.replace(loaded.info, class_names=stated)
    write_onnx(onnx_from_model(dataclasses.replace(loaded, info=info)), export)
    code, out, err = cli("eval", checkpoint, export, "--data", "data", "--json", "--limit", "4")
    assert code == 0, err
    assert len(json.loads(out)["scores"]) == 2
    other = tmp_path / "other.onnx"  # of another source
    write_onnx(onnx_from_model(dataclasses.replace(loaded, info=dataclasses.replace(info, source_sha256=""))), other)
    code, _, err = cli("eval", checkpoint, other, "--data", "data", "--limit", "4")
    assert (code, "do not name the same classes" in err) == (2, True)


def test_all_artefacts_on_the_same_images(cli, here):
    code, out, err = cli("eval", "a.onnx", "half.onnx", "bytes.onnx", "other.onnx", "--data", "data", "--json")
    assert code == 0, err
    report = json.loads(out)
    check_fields("Evaluation", report)
    assert report["images"] == COUNT
    assert [name for name, reason in report["broken"]] == ["c0/broken.png"]
    first, half, ranked, other = report["scores"]
    assert first["top1"]["value"] == pytest.approx(0.9)
    assert first["top5"]["value"] == 1.0
    assert half["precision"] == "fp16"
    assert ranked["top1"] == first["top1"]
    assert ranked["top5"] is None  # of three classes
    assert sum(confusion["count"] for confusion in first["confusions"]) == 4
    assert other["top1"]["value"] < 0.5
    against_other = next(d for d in report["differences"] if (d["first"], d["second"]) == ("a.onnx", "other.onnx"))
    assert against_other["p_value"] < 1e-4
    assert len(report["differences"]) == 6


def test_the_table_says_what_differs(cli, here):
    code, out, err = cli("eval", "a.onnx", "other.onnx", "--data", "data", "-o", "r.json")
    assert code == 0, err
    assert "90.00% (76.95%–96.04%)" in out
    assert "against a.onnx" in out
    assert " yes" in out
    assert "left out: c0/broken.png" in err
    assert json.loads((here / "r.json").read_text())["images"] == COUNT
    assert not (here / "r.json.part").exists()
    assert cli("eval", "a.onnx", "--data", "data", "-o", "r.json")[0] == 2


def test_the_function_returns_what_the_command_prints(cli, here, small, capsys, logged):
    counted = []
    report = evodeploy.evaluate(["a.onnx", small.module], "data", progress=lambda *each: counted.append(each))
    assert [score.artefact for score in report.scores] == ["a.onnx", type(small.module).__name__]
    assert report.scores[0].top1 == report.scores[1].top1
    assert counted == [(done, COUNT + 1) for done in range(1, COUNT + 2)]
    assert capsys.readouterr() == ("", "")
    assert logged[-1].startswith("left out: c0/broken.png: ")
    report = evodeploy.evaluate("a.onnx", "data", limit=8)
    found = json.loads(cli("eval", "a.onnx", "--data", "data", "--limit", "8", "--json")[1])
    stated = json.loads(json.dumps(report.to_dict()))
    for each in (found, stated):
        assert each["scores"][0].pop("images_per_second") > 0
    assert found == stated


def test_the_rate_holds_no_first_run_of_a_size_and_the_artefacts_take_turns_to_begin(here, tmp_path, monkeypatch):
    shutil.copytree(here / "data", tmp_path / "data", ignore=shutil.ignore_patterns("broken.png"))
    now, ran = [0.0], []

    def compute(name, images):
        now[0] += 1.0 if (name, len(images)) in ran else 100.0
        ran.append((name, len(images)))
        return {"logits": brightness_logits(images, 10)}

    def opened(source, *others):
        return FakeEngine(info_of(read_onnx(source)), compute=partial(compute, source.stem))

    monkeypatch.setattr(pipeline, "open_engine", opened)
    monkeypatch.setattr(pipeline, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    report = evodeploy.evaluate(["a.onnx", "half.onnx"], tmp_path / "data", batch=16)
    assert [score.images_per_second for score in report.scores] == pytest.approx([COUNT / 3] * 2)
    a, half, last_a, last_half = ("a", 16), ("half", 16), ("a", 8), ("half", 8)
    assert ran == [a, a, half, half, half, a, last_a, last_a, last_half, last_half]


def test_a_module_is_not_resumed(here, small):
    with pytest.raises(evodeploy.UsageError, match="is a module, which no journal can identify"):
        evodeploy.evaluate(small.module, "data", output="r.json")
    assert not list(here.glob("r.json*"))


def test_a_killed_run_is_resumed(cli, here):
    command = [sys.executable, "-m", "evodeploy", "eval", "a.onnx", "--data", "data", "--batch", "1", "-o", "r.json"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    part = here / "r.json.part"
    while process.poll() is None and not (part.exists() and part.read_bytes().count(b"\n") > 5):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    known = part.read_bytes()
    assert 5 < known.count(b"\n") < COUNT + 2
    os.truncate(part, len(known) - 3)  # as if it had been killed while it wrote
    code, out, err = cli("eval", "a.onnx", "--data", "data", "--batch", "1", "-o", "r.json", "--json")
    assert code == 0, err
    assert f"{known.count(b'%c' % 10) - 2} of them are known from r.json.part" in err
    resumed = json.loads(out)
    whole = json.loads(cli("eval", "a.onnx", "--data", "data", "--batch", "1", "--json")[1])
    for report in (resumed, whole):
        report["scores"][0].pop("images_per_second")
    assert resumed == whole


def test_the_journal_of_another_evaluation_is_refused(cli, here):
    assert cli("eval", "a.onnx", "--data", "data", "-o", "r.json")[0] == 0
    (here / "r.json").unlink()
    (here / "r.json.part").write_text('{"artefacts": [], "images": ""}\n')
    code, _, err = cli("eval", "a.onnx", "--data", "data", "-o", "r.json")
    assert code == 2
    assert "r.json.part belongs to another evaluation" in err
    assert cli("eval", "a.onnx", "--data", "data", "-o", "r.json", "--force")[0] == 0


def test_answers_to_images_that_were_replaced_are_not_mixed_in(here, tmp_path):
    copied, journal = tmp_path / "data", tmp_path / "answers.part"
    shutil.copytree(here / "data", copied)
    evodeploy.evaluate("a.onnx", copied, journal=journal)
    evodeploy.evaluate("a.onnx", "data", journal=journal)  # the same ones
    Image.new("RGB", (70, 60)).save(min(copied.glob("*/*.png")))
    with pytest.raises(UsageError, match="belongs to another evaluation"):
        evodeploy.evaluate("a.onnx", copied, journal=journal)


def test_one_evaluation_at_a_time_writes_a_journal(here, tmp_path):
    def evaluate(**options):
        return evodeploy.evaluate("a.onnx", "data", journal=tmp_path / "answers.part", **options)

    refused = []
    evaluate(progress=lambda done, left: refused.append(done == 1 and refused_in_thread(evaluate)))
    assert "answers.part: wait until it ends, or choose another output" in refused[0]
    assert refused_in_thread(evaluate) is None


@pytest.mark.parametrize(("what", "other"), [("device", "cuda:0"), ("tf32", True)])
def test_answers_of_another_device_or_of_tf32_are_not_mixed_in(here, monkeypatch, what, other):
    def elsewhere(*args):
        engine = open_engine(*args)
        setattr(engine, what, other)
        return engine

    def interrupt(done, count):
        raise RuntimeError("interrupted")

    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="interrupted"):
        patched.setattr(pipeline, "open_engine", elsewhere)
        evodeploy.evaluate("a.onnx", "data", batch=1, output="r.json", progress=interrupt)
    with pytest.raises(UsageError, match="belongs to another evaluation"):
        evodeploy.evaluate("a.onnx", "data", batch=1, output="r.json")


def test_answers_before_a_file_next_to_the_checkpoint_changed_are_not_mixed_in(small, here, tmp_path):
    def interrupt(done, count):
        raise RuntimeError("interrupted")

    save_checkpoint(small, tmp_path / "pytorch_model.bin")
    run = partial(evodeploy.evaluate, tmp_path / "pytorch_model.bin", "data", batch=1, output="r.json")
    with pytest.raises(RuntimeError, match="interrupted"):
        run(progress=interrupt)
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5]}')
    with pytest.raises(UsageError, match="belongs to another evaluation"):
        run()


def test_a_name_that_is_not_utf8_does_not_cost_the_report(cli, here, tmp_path):
    shutil.copytree("data", tmp_path / "data")
    (tmp_path / "data" / "c0" / os.fsdecode(b"latin-\xe9.png")).write_bytes(b"no image")
    code, _, err = cli("eval", "a.onnx", "--data", tmp_path / "data", "-o", "r.json")
    assert code == 0, err
    broken = [name for name, _ in json.loads((here / "r.json").read_text(encoding="utf-8"))["broken"]]
    assert broken == ["c0/broken.png", r"c0/latin-\udce9.png"]


def test_nothing_readable_is_an_error(cli, here, tmp_path):
    for index in range(10):
        (tmp_path / str(index)).mkdir()
    (tmp_path / "3" / "x.png").write_bytes(b"")
    code, _, err = cli("eval", "a.onnx", "--data", tmp_path)
    assert code == 4
    assert "none of 1 images can be evaluated" in err


def test_images_whose_outputs_are_no_numbers_do_not_count(cli, here, small_onnx, tmp_path):
    write_onnx(nan_where_dark(read_onnx(small_onnx)), tmp_path / "nan.onnx")
    code, out, err = cli("eval", "a.onnx", tmp_path / "nan.onnx", "--data", "data", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert 0 < report["images"] < COUNT
    assert len(report["broken"]) == COUNT + 1 - report["images"]
    reasons = {reason for _, reason in report["broken"]}
    assert f"{tmp_path / 'nan.onnx'}: the model's output for this image is not finite" in "".join(reasons)


def test_a_network_without_a_number_is_an_error(cli, here, tmp_path):
    model = read_onnx(here / "a.onnx")
    head = next(tensor for tensor in model.graph.initializer if list(tensor.dims) == [10])
    head.CopyFrom(numpy_helper.from_array(np.full(10, np.nan, np.float32), head.name))
    write_onnx(model, tmp_path / "nan.onnx")
    code, _, err = cli("eval", tmp_path / "nan.onnx", "--data", "data")
    assert code == 4
    assert "images can be evaluated; the first: " in err
    code, out, err = cli("predict", tmp_path / "nan.onnx", *sorted((here / "data").glob("c*/[0-9]*.png"))[:2])
    assert (code, out) == (4, "")
    assert "none of 2 images has a prediction" in err
    assert "is not finite" in err


def test_no_artefact_is_refused(tmp_path):
    with pytest.raises(evodeploy.UsageError, match="there are no artefacts"):
        evodeploy.evaluate([], tmp_path)
