from __future__ import annotations

import dataclasses

import pytest
import torch
from benchmark.fakes import RECORD, planned
from cases import SMALL
from graphs import restated

import evodeploy
from evodeploy.benchmark.subject import subject_of
from evodeploy.builder.engine import build_engine
from evodeploy.builder.request import BuildRequest
from evodeploy.engines.tensorrt.sidecar import write_sidecar
from evodeploy.errors import UsageError


def test_an_onnx_finds_the_checkpoint_it_was_made_from(small_onnx, small_checkpoint, tmp_path):
    onnx, checkpoint = tmp_path / "small.onnx", tmp_path / "small.pth"
    onnx.write_bytes(small_onnx.read_bytes())
    alone = subject_of([onnx])
    assert alone.model is None  # a size of its own: no checkpoint, no network
    assert alone.no_model.endswith("next to its export: give it, or name the published model of its size with --model")
    named = subject_of([onnx], "evo_deit_tiny_patch16_224")
    assert (named.random, named.model.config.stages) == (True, SMALL.stages)
    assert alone.info.image_size == SMALL.image_size
    checkpoint.write_bytes(small_checkpoint.read_bytes())
    assert subject_of([onnx]).model.config == SMALL
    checkpoint.write_bytes(b"another file of that name")
    assert subject_of([onnx]).model is None


def test_an_onnx_brings_the_engines_that_were_built_from_it(small_onnx, small_checkpoint, tmp_path):
    onnx = tmp_path / "small.onnx"
    onnx.write_bytes(small_onnx.read_bytes())
    (tmp_path / small_checkpoint.name).write_bytes(small_checkpoint.read_bytes())
    record = build_engine(BuildRequest(onnx, tmp_path / "a.engine", "fp16", targets=("sm89",)))
    other = dataclasses.replace(record, source_sha256="0" * 64)
    (tmp_path / "b.engine").write_bytes(b"x")
    write_sidecar(other, tmp_path / "b.engine")
    (tmp_path / "c.engine").write_bytes(b"without a record")
    subject = subject_of([onnx])
    assert [path.name for path in subject.plans] == ["a.engine"]
    assert "a.engine, which was built from small.onnx, is used too" in subject.notes


def test_two_checkpoints_are_refused(small_checkpoint):
    with pytest.raises(UsageError, match="2 checkpoints given"):
        subject_of([small_checkpoint, small_checkpoint])


def test_a_file_that_keeps_every_token_is_the_twins_in_any_order(small_onnx, small_checkpoint, tmp_path):
    dense = restated(small_onnx, tmp_path / "d.onnx", keep_ratios=(1.0, 1.0))
    plans = [planned(dense, tmp_path / "a.engine"), planned(small_onnx, tmp_path / "b.engine")]
    for paths in ([small_checkpoint, *plans], plans, [dense, plans[1]], [small_checkpoint, dense, plans[1]]):
        subject = subject_of(paths)
        assert not subject.info.dense
        assert [path.name for path in (*subject.onnx, *subject.plans)] == ["b.engine"]
        assert (*subject.twin_onnx, *subject.twin_plans) == tuple(path for path in paths if path in (dense, plans[0]))
    alone = subject_of([plans[0]])
    assert (alone.info.dense, alone.plans, alone.twin_plans) == (True, (plans[0],), ())


def test_a_dense_file_with_its_selecting_checkpoint_leaves_the_model_as_it_is(small_onnx, small_checkpoint, tmp_path):
    dense = planned(restated(small_onnx, tmp_path / "d.onnx", keep_ratios=(1.0, 1.0)), tmp_path / "d.engine")
    subject = subject_of([small_checkpoint, dense])
    assert subject.model.config == SMALL
    assert (subject.plans, subject.twin_plans) == ((), (dense,))


@pytest.mark.parametrize("keep_ratio", [None, 1.0])
def test_an_export_of_averaged_weights_is_measured_against_them(small_checkpoint, tmp_path, keep_ratio):
    content = torch.load(small_checkpoint, weights_only=False)
    content["model_ema"] = {name: tensor * 1.1 for name, tensor in content["model"].items()}
    torch.save(content, tmp_path / "c.pth")
    onnx = evodeploy.export(tmp_path / "c.pth", ema=True, keep_ratio=keep_ratio, verify=False).path
    expected = content["model_ema"]["head.weight"]
    for given in ([tmp_path / "c.pth", onnx], [onnx]):
        assert torch.equal(subject_of(given).model.module.head.weight, expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keep_ratios": (0.7, 0.5)}, r"keep ratios is \(0\.7, 0\.5\), expected \(0\.5, 0\.5\)"),
        ({"selection": "layer"}, "selection is layer, expected stage"),
        ({"keep_ratios": (1.0, 1.0), "num_classes": 5}, "num classes is 5, expected 10"),
        ({"model": "evo_deit_other"}, "model is evo_deit_other, expected evo_deit_test"),
    ],
)
def test_the_engine_of_another_model_is_refused_by_name(small_onnx, small_checkpoint, tmp_path, changes, message):
    other = planned(restated(small_onnx, tmp_path / "o.onnx", **changes), tmp_path / "o.engine")
    mine = planned(small_onnx, tmp_path / "m.engine")
    with pytest.raises(UsageError, match=rf"o\.engine is of another model: its {message}"):
        subject_of([small_checkpoint, mine, other])
    with pytest.raises(UsageError, match=rf"o\.engine is of another model: its {message}"):
        subject_of([mine, other])


def test_what_has_no_metadata_is_taken_for_the_model(small_onnx, small_checkpoint, tmp_path):
    bare = tmp_path / "bare.engine"
    bare.write_bytes(b"x")
    write_sidecar(dataclasses.replace(RECORD, model=None), bare)
    subject = subject_of([small_checkpoint, bare])
    assert (subject.plans, subject.twin_plans) == ((bare,), ())


def test_a_checkpoint_and_random_weights_are_given_a_fast_path_and_files_state_theirs(small_onnx, small_checkpoint):
    assert subject_of([small_checkpoint]).info.fast_path == "rest"
    subject = subject_of([small_checkpoint], fast_path="merge")
    assert (subject.info.fast_path, subject.model.module.config.fast_path) == ("merge", "merge")
    assert subject_of([], "evo_deit_tiny_patch16_224", fast_path="merge").info.fast_path == "merge"
    with pytest.raises(UsageError, match="EvoLeViT_128S .* merges none: leave out --fast-path"):
        subject_of([], "EvoLeViT_128S", fast_path="merge")
    for paths in ([small_onnx], [small_checkpoint, small_onnx]):
        with pytest.raises(UsageError, match=".onnx was exported with a fast path of its own: leave out"):
            subject_of(paths, fast_path="merge")
