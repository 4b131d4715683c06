"""A bench from Python: its sources, its device, and what its report offers."""

from __future__ import annotations

import json
import shutil
from functools import partial

import pytest
from benchmark.fakes import rare_report
from PIL import Image
from reference_pages import check_fields

import evodeploy
from evodeploy.benchmark import row_specs, usual
from evodeploy.benchmark.measure import peak
from evodeploy.benchmark.row_specs import row_specs_of
from evodeploy.benchmark.subject import subject_of
from evodeploy.benchmark.usual import usual_engines, usual_precisions
from evodeploy.errors import UsageError

QUICK = {"engines": ["torch"], "precisions": ["fp32"], "seconds": 0, "rounds": 6, "threads": 1}


def test_a_machine_whose_limit_cannot_be_measured_still_gives_its_rows(small, logged, monkeypatch):
    def full(product, device):
        raise RuntimeError("CUDA out of memory. Tried to allocate 256.00 MiB.")

    monkeypatch.setattr(peak, "_seconds", full)
    report = evodeploy.bench(small.module, batches=[1], device="cpu", **QUICK)
    assert any("matrix products could not be measured: CUDA out of memory. Tried to all" in line for line in logged)
    assert [row["share_of_peak"] for row in report.to_dict()["results"]] == [None] * 2


def test_no_row_is_above_the_limit_if_the_machine_was_slower_when_its_products_were_timed(small, monkeypatch):
    monkeypatch.setattr(peak, "SIDES", {"cpu": (64,)})
    monkeypatch.setattr(peak, "_seconds", lambda product, device: 1e3)
    results = evodeploy.bench(small.module, batches=[1], device="cpu", **QUICK).to_dict()["results"]
    shares = [row["share_of_peak"] for row in results]
    assert len(shares) == 2 and max(shares) == 1.0 and min(shares) > 0.0


def test_a_module_is_benched_and_its_report_prints_and_is_saved(small, tmp_path, monkeypatch):
    monkeypatch.setattr(peak, "SIDES", {"cpu": (64,)})
    report = evodeploy.bench(small.module, batches=[1], device="cpu", **QUICK)
    assert [(row.spec.role, row.spec.random, row.device) for row in report.rows] == [
        ("evo", False, "cpu"), ("dense", False, "cpu"),
    ]  # fmt: skip
    assert "fastest at batch 1: torch fp32, " in str(report)
    assert "\x1b" not in str(report)
    for name, begins in (("b.json", '{\n "schema": 3'), ("b.csv", "engine,model,"), ("b.HTML", "<!doctype html>")):
        report.save(tmp_path / name)
        assert (tmp_path / name).read_text().startswith(begins)
    assert json.loads((tmp_path / "b.json").read_text()) == json.loads(json.dumps(report.to_dict()))
    check_fields("Bench", report.to_dict(), rare_report().to_dict())
    with pytest.raises(UsageError, match=r"b\.json already exists"):
        report.save(tmp_path / "b.json")
    report.save(str(tmp_path / "b.json"), force=True)
    with pytest.raises(UsageError, match=r"expected a name that ends with \.json, \.csv, \.html, \.htm"):
        report.save(tmp_path / "b.txt")


OUT_OF_RANGE, NOT_WHOLE = "expected whole numbers from 1 to 16384", "expected a list, each a whole number"


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], OUT_OF_RANGE), ([0], OUT_OF_RANGE), ([16385], OUT_OF_RANGE), ([8, 8], "each once"), ([True], NOT_WHOLE),
        ([2.0], NOT_WHOLE),
    ],
)  # fmt: skip
def test_batches_that_cannot_be_are_refused_before_anything_runs(batches, message):
    with pytest.raises(UsageError, match=message):
        evodeploy.bench("nowhere.onnx", batches=batches)


def test_each_of_several_files_is_timed_from_files_to_labels(small_onnx, tmp_path, monkeypatch):
    monkeypatch.setattr(peak, "SIDES", {"cpu": (64,)})
    files = [shutil.copy(small_onnx, tmp_path / name) for name in ("one.onnx", "two.onnx")]
    Image.new("RGB", (70, 60)).save(tmp_path / "a.png")
    report = evodeploy.bench(files, batches=[1, 2], images=tmp_path, build=False, **QUICK | {"engines": "onnxruntime"})
    assert [(each.label, each.reason) for each in report.end_to_end] == [
        ("onnxruntime fp32 one.onnx", ""), ("onnxruntime fp32 two.onnx", ""),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engines": "abacus"}, "no engine is called 'abacus'"),
        ({"engines": "onnxruntime", "precisions": "fp64"}, "no precision is called 'fp64'"),
        ({"threads": 0}, "threads is 0"),
    ],
)
def test_names_are_one_or_several_and_threads_are_a_number(small_onnx, options, message):
    with pytest.raises(UsageError, match=message):
        evodeploy.bench(small_onnx, batches=[1], build=False, **options)


def test_a_device_chooses_the_engines_and_is_given_to_each(small_checkpoint, monkeypatch):
    subject = subject_of([small_checkpoint])
    monkeypatch.setattr(usual, "driver_problem", lambda: None)
    monkeypatch.setattr(usual, "builder_problem", lambda: None)
    assert usual_engines(subject, "cpu") == ("torch", "torch-compile", "onnxruntime", "openvino")
    assert usual_engines(subject, "cuda:1")[-3:] == ("onnxruntime-cuda", "onnxruntime-tensorrt", "tensorrt")
    assert usual_precisions("cuda:1") == ("fp32", "fp16")
    with pytest.raises(UsageError, match="no device is called 'gpu'"):
        usual_engines(subject, "gpu")
    opened = []
    monkeypatch.setattr(row_specs, "open_engine", lambda path, name, options: opened.append(options.device))
    monkeypatch.setattr(row_specs, "_exported", lambda model, path: small_checkpoint)
    monkeypatch.setattr(row_specs, "_read", partial(row_specs._Onnx, precision="fp32", flops=None))
    with row_specs_of(subject, ["onnxruntime", "tensorrt"], ["fp32"], 1, device="cpu") as specs:
        for spec in specs[:1]:
            spec.open()
    assert opened == ["cpu"]


def test_on_the_cpu_no_tensorrt_engine_is_built(small_checkpoint, tmp_path):
    report = evodeploy.bench(
        small_checkpoint, batches=[1], device="cpu", engine_cache=tmp_path / "kept", **QUICK | {"engines": ["tensorrt"]}
    )
    (row,) = report.rows
    assert row.reason.endswith("none is built: a TensorRT engine computes on a GPU only")
    assert not report.timed
