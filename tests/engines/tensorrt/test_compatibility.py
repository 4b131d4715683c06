"""What is compared before TensorRT sees a plan."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from types import SimpleNamespace

import pytest

from evodeploy.engines.opener import open_engine
from evodeploy.engines.tensorrt.compatibility import check_fits, check_unchanged
from evodeploy.engines.tensorrt.flavour import Flavour
from evodeploy.engines.tensorrt.sidecar import PlanRecord, Profile, write_sidecar
from evodeploy.errors import BadFileError, UnavailableError, UsageError
from evodeploy.specs import EngineOptions, TensorSpec

PLAN = b"a plan"
RECORD = PlanRecord(
    runtime="tensorrt", runtime_version="10.13.0.35", targets=(), precision="fp16", profiles=(Profile(),),
    inputs=(TensorSpec("images", "float32", (None, 3, 8, 8)),), outputs=(TensorSpec("logits", "float32", (None, 3)),),
    model=None, source="x.onnx", source_sha256="", plan_sha256=hashlib.sha256(PLAN).hexdigest(),
    plan_bytes=len(PLAN), architecture="sm86",
)  # fmt: skip


def tensorrt(version: str) -> Flavour:
    return Flavour("tensorrt", SimpleNamespace(__version__=version))  # type: ignore[arg-type]


def check(version="10.13.0.35", here="sm86", **changes):
    check_fits(dataclasses.replace(RECORD, **changes), Path("x.engine"), tensorrt(version), here)


def test_the_same_tensorrt_and_gpu_fit():
    check()
    check(version="10.13.0.35.post1")


def test_another_gpu_or_version_is_one_sentence_with_the_way_out():
    with pytest.raises(
        UnavailableError,
        match=r"x.engine was built for sm86 with tensorrt 10.13.0.35; here: sm89 with tensorrt 10.13.0.35: "
        r"build it again with `evodeploy build-engine x.onnx`",
    ):
        check(here="sm89")
    with pytest.raises(UnavailableError, match="here: sm86 with tensorrt 10.14"):
        check(version="10.14.1.48")


def test_a_portable_plan_takes_later_versions_and_gpus():
    check(version="11.4.0.1", version_compatible=True)
    with pytest.raises(UnavailableError):
        check(version="10.12.9.9", version_compatible=True)
    check(here="sm120", hardware_compatible="ampere-plus")
    with pytest.raises(UnavailableError):
        check(here="sm75", hardware_compatible="ampere-plus")
    check(here="sm120", targets=("sm89", "sm120"))
    with pytest.raises(UnavailableError, match="built for sm89, sm120"):
        check(here="sm86", targets=("sm89", "sm120"))


def test_an_altered_plan_is_refused():
    check_unchanged(RECORD, Path("x.engine"), PLAN)
    with pytest.raises(BadFileError, match="is not the engine that its record describes"):
        check_unchanged(RECORD, Path("x.engine"), PLAN + b" ")


def test_without_a_driver_a_plan_is_refused_before_anything_is_loaded(tmp_path):
    path = tmp_path / "x.engine"
    path.write_bytes(PLAN)
    write_sidecar(RECORD, path)
    with pytest.raises(UnavailableError, match="runs on an NVIDIA GPU only, and here no NVIDIA driver"):
        open_engine(path)
    with pytest.raises(UsageError, match="runs on an NVIDIA GPU only, got device cpu"):
        open_engine(path, options=EngineOptions(device="cpu"))
