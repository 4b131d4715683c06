from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from cases import SMALL

from evodeploy.bench.candidates import Candidate, candidates_of, subject_of
from evodeploy.bench.environment import environment
from evodeploy.bench.measure import Budget
from evodeploy.bench.report import as_json, as_table, reasons
from evodeploy.bench.run import bench
from evodeploy.build import BuildRequest, build
from evodeploy.engines.fake import FakeEngine
from evodeploy.engines.tensorrt.sidecar import write_sidecar
from evodeploy.errors import UnavailableError, UsageError
from evodeploy.models.zoo import dense_twin
from evodeploy.specs import BatchRange, ModelInfo

INFO = ModelInfo("fake", image_size=8, patch_size=4, num_classes=3, selection="stage", keep_ratios=(0.5,))
QUICK = Budget(seconds=0, rounds=2, warmup_seconds=0)


def quiet(text):
    pass


def fake(name, role="evo", **options):
    return Candidate(name, role, "fp32", "", lambda: FakeEngine(INFO, **options))


def refused():
    raise UnavailableError("no GPU here")


def test_rows_in_order_with_ratios_to_pytorch_on_the_model():
    rows = bench([fake("torch"), fake("onnxruntime"), fake("torch", "dense")], [1, 4], QUICK, quiet)
    assert [(row.batch, row.engine, row.role) for row in rows] == [
        (batch, *which) for batch in (1, 4) for which in (("torch", "evo"), ("onnxruntime", "evo"), ("torch", "dense"))
    ]
    for row in rows:
        assert row.images_per_second == pytest.approx(row.batch / row.timing.median)
        baseline = next(r for r in rows if r.batch == row.batch)
        assert row.ratio == pytest.approx(row.images_per_second / baseline.images_per_second)


def test_one_that_cannot_open_or_fails_is_a_row_with_its_reason_and_the_others_go_on():
    def fail(images):
        raise MemoryError("not that much")

    candidates = [
        Candidate("tensorrt", "evo", "fp16", "", refused),
        fake("broken", compute=fail),
        fake("narrow", batch=BatchRange(1, 2)),
        fake("torch"),
    ]
    rows = bench(candidates, [4], QUICK, quiet)
    assert [row.timing is not None for row in rows] == [False, False, False, True]
    assert rows[0].reason == "no GPU here"
    assert "broken failed" in rows[1].reason or "not that much" in rows[1].reason
    assert "range of 1 to 2" in rows[2].reason
    assert rows[3].ratio == 1.0
    assert len(reasons(rows)) == 3


def test_one_that_takes_other_images_is_a_row_with_its_reason():
    larger = dataclasses.replace(INFO, image_size=16)
    other = Candidate("onnxruntime", "evo", "fp32", "", lambda: FakeEngine(larger))
    first, second = bench([fake("torch"), other], [2], QUICK, quiet)
    assert first.timing is not None
    assert "expected (batch, 3, 16, 16)" in second.reason


def test_engines_are_closed_at_the_end():
    opened = []

    def open_one():
        opened.append(FakeEngine(INFO))
        return opened[0]

    bench([Candidate("torch", "evo", "fp32", "", open_one)], [1], QUICK, quiet)
    with pytest.raises(UsageError, match="closed"):
        opened[0].run(np.zeros((1, 3, 8, 8), np.float32))


def test_the_document_has_one_object_a_row():
    subject = dataclasses.replace(subject_of([], "evo_deit_tiny_patch16_224"), notes=("assumed",))
    rows = bench([fake("torch"), Candidate("tensorrt", "evo", "fp16", "", refused)], [2], QUICK, quiet)
    document = json.loads(json.dumps(as_json(subject, rows, environment(1))))
    assert document["schema"] == 1
    assert document["environment"]["threads"] == 1
    first, second = document["results"]
    assert first["status"] == "ok"
    assert first["images_per_second"] == pytest.approx(2e3 / first["median_ms"])
    assert len(first["samples_ms"]) == 2
    assert (second["status"], second["reason"]) == ("unavailable", "no GPU here")
    assert as_table(rows).row_count == 2


def rows_of(paths, engines, model=None):
    with candidates_of(subject_of(paths, model), engines, threads=1) as candidates:
        return [(c.engine, c.role, c.artefact) for c in candidates]


def test_a_checkpoint_is_exported_for_the_onnx_rows(small_checkpoint):
    assert rows_of([small_checkpoint], ["torch", "onnxruntime", "tensorrt"]) == [
        ("torch", "evo", ""),
        ("onnxruntime", "evo", "evo.onnx"),
        ("tensorrt", "evo", ""),
        ("torch", "dense", ""),
        ("onnxruntime", "dense", "dense.onnx"),
    ]


def test_an_onnx_finds_the_checkpoint_it_was_made_from(small_onnx, small_checkpoint, tmp_path):
    onnx, checkpoint = tmp_path / "small.onnx", tmp_path / "small.pth"
    onnx.write_bytes(small_onnx.read_bytes())
    alone = subject_of([onnx])
    assert alone.model is None  # a size of its own: no checkpoint, no network
    assert "not beside its export" in alone.no_model
    checkpoint.write_bytes(small_checkpoint.read_bytes())
    assert subject_of([onnx]).model.config == SMALL
    checkpoint.write_bytes(b"another file of that name")
    assert subject_of([onnx]).model is None


def test_an_onnx_brings_the_engines_that_were_built_from_it(small_onnx, small_checkpoint, tmp_path):
    onnx = tmp_path / "small.onnx"
    onnx.write_bytes(small_onnx.read_bytes())
    (tmp_path / small_checkpoint.name).write_bytes(small_checkpoint.read_bytes())
    record = build(BuildRequest(onnx, tmp_path / "a.engine", "fp16", targets=("sm89",)), tell=quiet)
    other = dataclasses.replace(record, source_sha256="of another file")
    (tmp_path / "b.engine").write_bytes(b"x")
    write_sidecar(other, tmp_path / "b.engine")
    (tmp_path / "c.engine").write_bytes(b"without a record")
    subject = subject_of([onnx])
    assert [path.name for path in subject.plans] == ["a.engine"]
    assert "a.engine, which was built from small.onnx, is taken too" in subject.notes


def test_without_the_network_its_rows_say_why(small_onnx, tmp_path):
    onnx = tmp_path / "small.onnx"
    onnx.write_bytes(small_onnx.read_bytes())
    with candidates_of(subject_of([onnx]), ["torch", "onnxruntime"], threads=1) as candidates:
        rows = bench(candidates, [1], QUICK, quiet)
    assert [(row.engine, row.role, row.timing is not None) for row in rows] == [
        ("torch", "evo", False), ("onnxruntime", "evo", True),
        ("torch", "dense", False), ("onnxruntime", "dense", False),
    ]  # fmt: skip
    assert "not beside its export" in rows[0].reason


def test_a_dense_model_is_its_own_twin(tmp_path, small):
    from evodeploy.models.checkpoint import reconfigured, save_checkpoint

    save_checkpoint(reconfigured(small, dense_twin(SMALL)), tmp_path / "dense.pth")
    assert rows_of([tmp_path / "dense.pth"], ["torch"]) == [("torch", "evo", "")]


def test_what_cannot_be_meant_is_refused(small_checkpoint):
    with pytest.raises(UsageError, match="no engine is called 'torhc'"):
        rows_of([small_checkpoint], ["torhc"])
    with pytest.raises(UsageError, match="2 checkpoints given"):
        subject_of([small_checkpoint, small_checkpoint])


def test_the_precision_of_a_row_is_that_of_its_file(small_onnx, tmp_path):
    from evodeploy.export.precision import reduced_from_onnx
    from evodeploy.onnx_files import read_onnx, write_onnx

    half = tmp_path / "half.onnx"
    write_onnx(reduced_from_onnx(read_onnx(small_onnx), "fp16").proto, half)
    with candidates_of(subject_of([small_onnx, half]), ["onnxruntime"], threads=1) as candidates:
        rows = bench(candidates, [1], QUICK, quiet)
    assert [(row.artefact, row.precision) for row in rows[:2]] == [("small.onnx", "fp32"), ("half.onnx", "fp16")]
