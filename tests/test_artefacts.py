from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
from graphs import retrained, sharded

import evodeploy
from evodeploy.artefacts import family_of, identity, newest_export
from evodeploy.builder.engine import build_engine
from evodeploy.builder.request import BuildRequest
from evodeploy.engines.opener import open_engine
from evodeploy.errors import BadFileError, UsageError
from evodeploy.files import sha256
from evodeploy.kinds import kind_of
from evodeploy.onnx_files import onnx_sha256
from evodeploy.specs import EngineOptions

OPENERS = {"open_engine": open_engine, "load": lambda path: evodeploy.load(path).engine}


class Elsewhere(os.PathLike):
    """A path of another library."""

    def __init__(self, path):
        self._path = str(path)

    def __fspath__(self):
        return self._path


@pytest.mark.parametrize("kind", [str, Elsewhere])
@pytest.mark.parametrize("opener", OPENERS)
def test_every_opener_takes_every_kind_of_path(opener, kind, small_onnx):
    with OPENERS[opener](kind(small_onnx)) as engine:
        assert engine.name == "onnxruntime"


def test_a_checkpoint_is_opened_from_a_string(small_checkpoint):
    with open_engine(str(small_checkpoint), options=EngineOptions(threads=1)) as engine:
        assert engine.name == "torch"


@pytest.fixture
def capitals(small_onnx, small_checkpoint, tmp_path):
    """The same files with suffixes in capitals, as some systems write them."""
    shutil.copy(small_onnx, tmp_path / "SMALL.ONNX")
    shutil.copy(small_checkpoint, tmp_path / "SMALL.PTH")
    return tmp_path


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_suffix_in_capitals_is_the_same_suffix(runtime, capitals, small_onnx, small_images):
    with open_engine(capitals / "SMALL.ONNX", runtime) as engine, open_engine(small_onnx, runtime) as usual:
        np.testing.assert_array_equal(engine.run(small_images)["logits"], usual.run(small_images)["logits"])


def test_a_suffix_in_capitals_is_known_for_checkpoints_and_in_a_folder(capitals):
    assert kind_of(capitals / "SMALL.PTH") == "checkpoint"
    assert kind_of(str(capitals / "a.ENGINE")) == "engine"
    with open_engine(capitals / "SMALL.PTH") as engine:
        assert engine.name == "torch"
    assert newest_export(capitals) == capitals / "SMALL.ONNX"
    assert family_of(capitals / "SMALL.ONNX").engines == ()


def test_other_suffixes_are_refused(capitals):
    for opener in OPENERS.values():
        with pytest.raises(UsageError, match=r"\.txt"):
            opener(capitals / "a.txt")


def test_why_the_newest_onnx_file_cannot_be_read_is_said(small_onnx, tmp_path):
    shutil.copy(small_onnx, tmp_path / "a.onnx")
    os.utime(tmp_path / "a.onnx", (1, 1))
    (tmp_path / "b.onnx").write_bytes(small_onnx.read_bytes()[:500])
    with pytest.raises(BadFileError, match=r"newest ONNX file here .*b.onnx is damaged .*; name the file to use"):
        newest_export(tmp_path)
    os.utime(tmp_path / "b.onnx", (0, 0))
    assert newest_export(tmp_path) == tmp_path / "a.onnx"


def test_the_checksum_of_an_onnx_file_covers_weights_in_other_files(small_onnx, tmp_path):
    assert onnx_sha256(small_onnx) == sha256(small_onnx)
    path, weights = sharded(small_onnx, tmp_path)
    before = onnx_sha256(path)
    retrained(weights)
    assert onnx_sha256(path) != before


def test_an_engine_of_other_weights_is_not_of_the_family(small_onnx, tmp_path):
    path, weights = sharded(small_onnx, tmp_path)
    build_engine(BuildRequest(path, tmp_path / "a.engine", "fp16", targets=("sm89",)))
    assert family_of(path).engines == (tmp_path / "a.engine",)
    retrained(weights)
    assert family_of(path).engines == ()


def test_the_identity_covers_every_file_that_decides_the_answers_and_no_name(small_onnx, small_checkpoint, tmp_path):
    path, weights = sharded(small_onnx, tmp_path)
    before = identity(path)
    assert identity(path.rename(tmp_path / "renamed.onnx")) == before
    retrained(weights)
    assert identity(tmp_path / "renamed.onnx") != before
    shutil.copy(small_checkpoint, tmp_path / "pytorch_model.bin")
    before = identity(tmp_path / "pytorch_model.bin")
    (tmp_path / "preprocessor_config.json").write_text("{}")
    assert identity(tmp_path / "pytorch_model.bin") != before
    best = shutil.copy(small_checkpoint, tmp_path / "model_best.ckpt")  # a checkpoint may have any suffix
    assert identity(best) == sha256(best)
