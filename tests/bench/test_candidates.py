from __future__ import annotations

import pytest
from bench.fakes import planned, raced, written
from cases import SMALL

from evodeploy.bench.candidates import candidates_of, usual_engines
from evodeploy.bench.subject import subject_of
from evodeploy.errors import UsageError
from evodeploy.models.zoo import dense_twin


def rows_of(paths, engines, precisions=("fp32",)):
    with candidates_of(subject_of(paths), engines, precisions, threads=1) as candidates:
        return [(c.engine, c.role, c.precision, c.artefact) for c in candidates]


def test_a_checkpoint_is_exported_for_the_onnx_rows(small_checkpoint):
    assert rows_of([small_checkpoint], ["torch", "openvino", "tensorrt"], ("fp32", "bf16")) == [
        ("torch", "evo", "fp32", ""),
        ("torch", "evo", "bf16", ""),
        ("openvino", "evo", "fp32", "evo.onnx"),
        ("openvino", "evo", "bf16", "evo.onnx"),
        ("tensorrt", "evo", None, ""),
        ("torch", "dense", "fp32", ""),
        ("torch", "dense", "bf16", ""),
        ("openvino", "dense", "fp32", "dense.onnx"),
        ("openvino", "dense", "bf16", "dense.onnx"),
    ]


def test_the_model_takes_less_work_than_its_twin(small_checkpoint):
    with candidates_of(subject_of([small_checkpoint]), ["torch"], ["fp32"], threads=1) as candidates:
        evo, dense = (candidate.flops for candidate in candidates)
    assert 0.5 * dense < evo < dense


def test_without_the_network_its_rows_say_why(small_onnx, tmp_path):
    onnx = tmp_path / "small.onnx"
    onnx.write_bytes(small_onnx.read_bytes())
    with candidates_of(subject_of([onnx]), ["torch", "onnxruntime"], ["fp32"], threads=1) as candidates:
        rows = raced(candidates, [1])
    found = [(row.candidate.engine, row.candidate.role, row.timing is not None) for row in rows]
    assert [entry for entry in found if entry[2]] == [("onnxruntime", "evo", True)]
    assert "not beside its export" in next(row.reason for row in rows if row.candidate.engine == "torch")


def test_a_dense_model_is_its_own_twin(tmp_path, small):
    from evodeploy.models.checkpoint import reconfigured, save_checkpoint

    save_checkpoint(reconfigured(small, dense_twin(SMALL)), tmp_path / "dense.pth")
    assert rows_of([tmp_path / "dense.pth"], ["torch"]) == [("torch", "evo", "fp32", "")]


def test_what_cannot_be_meant_is_refused(small_checkpoint):
    with pytest.raises(UsageError, match="no engine is called 'torhc'"):
        rows_of([small_checkpoint], ["torhc"])
    with pytest.raises(UsageError, match="no precision is called 'fp8'"):
        rows_of([small_checkpoint], ["torch"], ("fp8",))


def test_the_precision_of_a_row_is_that_of_its_file(small_onnx, tmp_path):
    from evodeploy.export.precision import reduced_from_onnx
    from evodeploy.onnx_files import read_onnx, write_onnx

    half = tmp_path / "half.onnx"
    write_onnx(reduced_from_onnx(read_onnx(small_onnx), "fp16").proto, half)
    with candidates_of(subject_of([small_onnx, half]), ["onnxruntime"], ["fp32"], threads=1) as candidates:
        rows = raced(candidates, [1])
    found = [(row.candidate.artefact, row.precision) for row in rows[:2]]
    assert found == [("small.onnx", "fp32"), ("half.onnx", "fp16")]


def test_engines_that_need_a_gpu_are_not_usual_where_there_is_none(small_checkpoint):
    assert usual_engines(subject_of([small_checkpoint])) == ("torch", "torch-compile", "onnxruntime", "openvino")


def test_a_dense_engine_that_is_given_is_the_twins_row(small_onnx, small_checkpoint, tmp_path):
    dense = planned(written(small_onnx, tmp_path / "d.onnx", keep_ratios=(1.0, 1.0)), tmp_path / "d.engine")
    mine = planned(small_onnx, tmp_path / "m.engine")
    assert rows_of([small_checkpoint, dense, mine], ["tensorrt"]) == [
        ("tensorrt", "evo", "fp16", "m.engine"),
        ("tensorrt", "dense", "fp16", "d.engine"),
    ]
    given = rows_of([small_checkpoint, tmp_path / "d.onnx"], ["onnxruntime"])
    assert given == [("onnxruntime", "evo", "fp32", "evo.onnx"), ("onnxruntime", "dense", "fp32", "d.onnx")]
