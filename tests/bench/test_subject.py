from __future__ import annotations

import dataclasses

import pytest
from bench.fakes import quiet
from cases import SMALL

from evodeploy.bench.subject import subject_of
from evodeploy.build import BuildRequest, build
from evodeploy.engines.tensorrt.sidecar import write_sidecar
from evodeploy.errors import UsageError


def test_an_onnx_finds_the_checkpoint_it_was_made_from(small_onnx, small_checkpoint, tmp_path):
    onnx, checkpoint = tmp_path / "small.onnx", tmp_path / "small.pth"
    onnx.write_bytes(small_onnx.read_bytes())
    alone = subject_of([onnx])
    assert alone.model is None  # a size of its own: no checkpoint, no network
    assert "not beside its export" in alone.no_model
    assert alone.info.image_size == SMALL.image_size
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


def test_two_checkpoints_are_one_too_many(small_checkpoint):
    with pytest.raises(UsageError, match="2 checkpoints given"):
        subject_of([small_checkpoint, small_checkpoint])
