"""Builder options: set where the flavour at hand honours them, refused by name where it would not."""

from __future__ import annotations

import dataclasses
import logging
import types

import pytest

from evodeploy.builder.decisions import decide
from evodeploy.builder.engine import build_engine
from evodeploy.builder.options import BuilderOptions, apply_options, check_options
from evodeploy.builder.request import BuildRequest
from evodeploy.engines.tensorrt.flavour import Flavour, load_flavour
from evodeploy.engines.tensorrt.sidecar import Profile, read_sidecar
from evodeploy.errors import RuntimeFailedError, UsageError


@pytest.fixture(scope="module")
def rtx():
    return load_flavour("tensorrt-rtx")


def tensorrt(version):
    module = types.ModuleType("tensorrt")
    module.__version__ = version
    return Flavour("tensorrt", module)


def build_with(onnx, output, **changes):
    request = BuildRequest(
        onnx, output, **({"precision": "fp16", "runtime": "tensorrt-rtx", "targets": ("sm89",)} | changes)
    )
    return build_engine(request)


@pytest.mark.parametrize(
    ("options", "name", "reason"),
    [
        (BuilderOptions(optimization_level=5), "optimization-level", "the same at every level"),
        (BuilderOptions(timing_cache="timings"), "timing-cache", "measures nothing"),
        (BuilderOptions(version_compatible=True), "version-compatible", "no lean runtime|without a lean runtime"),
        (BuilderOptions(hardware_compatible="ampere-plus"), "hardware-compatible", "--target"),
        (BuilderOptions(refittable=True), "refittable", "needs a GPU"),
        (BuilderOptions(strip_plan=True), "strip-plan", "needs a GPU"),
    ],
)
def test_what_rtx_would_ignore_or_break_on_is_refused_by_name(rtx, small_onnx, tmp_path, options, name, reason):
    with pytest.raises(UsageError, match=rf"tensorrt-rtx .* does not honour --{name} .*({reason})"):
        build_with(small_onnx, tmp_path / "x.engine", options=options)
    assert list(tmp_path.iterdir()) == []


def test_tensorrt_itself_has_every_option():
    check_options(tensorrt("11.4.0.106"), BuilderOptions(3, 1 << 30, "timings", True, "ampere-plus", tf32=False))
    check_options(tensorrt("11.4.0.106"), BuilderOptions(refittable=True, strip_plan=True))


@pytest.mark.parametrize("options", [{"refittable": True}, {"strip_plan": True}])
def test_what_an_engine_that_takes_other_weights_cannot_have_is_refused(options):
    name = f"--{next(iter(options)).replace('_', '-')}"
    with pytest.raises(UsageError, match=f"{name} and --version-compatible exclude each other"):
        check_options(tensorrt("10.13.0.35"), BuilderOptions(version_compatible=True, **options))
    with pytest.raises(UsageError, match=f"{name} allows one profile, got 2"):
        check_options(tensorrt("10.13.0.35"), BuilderOptions(**options), profiles=2)
    with pytest.raises(UsageError, match=rf"{name} may drop a bias in tensorrt 11\.3\.0\.14"):
        check_options(tensorrt("11.3.0.14"), BuilderOptions(**options))


def test_the_profiles_asked_for_are_counted(small_onnx, tmp_path, monkeypatch):
    monkeypatch.setattr(Flavour, "lacks", lambda flavour, option: "")  # as on a machine with a GPU
    with pytest.raises(UsageError, match="--refittable allows one profile, got 2"):
        build_with(
            small_onnx, tmp_path / "x.engine", profiles=((1, 1, 1), (2, 4, 8)), options=BuilderOptions(refittable=True)
        )


@pytest.mark.parametrize("level", [-1, 6])
def test_levels_beyond_the_scale_are_refused(level):
    with pytest.raises(UsageError, match=f"level is {level}, expected 0 to 5"):
        BuilderOptions(optimization_level=level)


def test_an_unknown_compatibility_is_refused():
    with pytest.raises(UsageError, match="'any', expected ampere-plus or same-capability"):
        BuilderOptions(hardware_compatible="any")


def test_options_reach_a_real_configuration(rtx):
    """RTX's configuration is a real one and remembers what is set, though RTX would not act on all of it."""
    from evodeploy.engines.tensorrt.log import shared_logger

    config = rtx.trt.Builder(shared_logger(rtx)[0]).create_builder_config()
    flags = rtx.trt.BuilderFlag
    apply_options(rtx, config, BuilderOptions())
    assert not config.get_flag(flags.REFIT)
    assert config.get_flag(flags.TF32)
    options = BuilderOptions(2, 123 << 20, version_compatible=True, strip_plan=True, tf32=False)
    apply_options(rtx, config, options)
    assert config.builder_optimization_level == 2
    assert config.get_memory_pool_limit(rtx.trt.MemoryPoolType.WORKSPACE) == 123 << 20
    assert config.get_flag(flags.VERSION_COMPATIBLE)
    assert config.get_flag(flags.REFIT)
    assert config.get_flag(flags.STRIP_PLAN)
    assert not config.get_flag(flags.TF32)


def test_hardware_compatibility_is_set_by_its_name(rtx):
    config = types.SimpleNamespace()  # RTX's own configuration drops it
    for asked, member in (("ampere-plus", "AMPERE_PLUS"), ("same-capability", "SAME_COMPUTE_CAPABILITY")):
        apply_options(rtx, config, BuilderOptions(hardware_compatible=asked))
        assert config.hardware_compatibility_level.name == member


def test_a_workspace_that_is_too_small_fails_with_tensorrts_reason(small_onnx, tmp_path):
    with pytest.raises(RuntimeFailedError, match="could not build the engine: "):
        build_with(small_onnx, tmp_path / "x.engine", options=BuilderOptions(workspace=1))
    assert list(tmp_path.iterdir()) == []


def test_tf32_is_recorded(small_onnx, tmp_path):
    record = build_with(small_onnx, tmp_path / "x.engine", precision="fp32", options=BuilderOptions(tf32=False))
    assert (record.tf32, record.may_be_tf32) == (False, False)
    assert read_sidecar(tmp_path / "x.engine") == record
    assert dataclasses.replace(record, tf32=None).may_be_tf32  # of an older version


def test_each_profile_adds_its_own_kernels(small_onnx, tmp_path):
    one = build_with(small_onnx, tmp_path / "one.engine", profiles=((1, 1, 1),))
    two = build_with(small_onnx, tmp_path / "two.engine", profiles=((1, 1, 1), (2, 8, 16)))
    assert two.profiles == (Profile(1, 1, 1), Profile(2, 8, 16))
    assert two.plan_bytes > one.plan_bytes


def test_a_second_profile_is_checked_as_the_first_is(small_onnx, tmp_path):
    with pytest.raises(UsageError, match="min 9, opt 8, max 16 are out of order"):
        build_with(small_onnx, tmp_path / "x.engine", profiles=((1, 1, 1), (9, 8, 16)))


def test_decide_checks_everything_and_writes_nothing(small_onnx, tmp_path):
    request = BuildRequest(small_onnx, tmp_path / "x.engine", "fp16", ((1, None, None),), "tensorrt-rtx", ("sm89",))
    engine = decide(request).engine
    assert engine.profiles == (Profile(1, 32, 128),)
    assert engine.targets == ("sm89",)
    assert any("TopK" in reason for reason in engine.kept_fp32.values())
    assert list(tmp_path.iterdir()) == []


def test_images_measure_the_range_before_fp16_and_only_there(small_onnx, tmp_path, logged):
    from PIL import Image

    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (70, 66), (200, 40, 90)).save(folder / "plain.png")
    record = build_with(small_onnx, tmp_path / "x.engine", images=folder)
    assert record.largest_activation
    assert any(record.largest_activation in line and "65504" in line for line in logged)
    with pytest.raises(UsageError, match="--images is for the range check of --fp16"):
        build_with(small_onnx, tmp_path / "y.engine", precision="fp32", images=folder)


def test_the_whole_log_goes_to_its_file_also_when_the_build_fails(small_onnx, tmp_path):
    log = tmp_path / "build.log"
    with pytest.raises(RuntimeFailedError):
        build_with(small_onnx, tmp_path / "x.engine", options=BuilderOptions(workspace=1), log=log)
    lines = log.read_text().splitlines()
    assert any(line.startswith("[ERROR]") for line in lines)
    assert len(lines) > 20


def test_what_tensorrt_says_is_logged_for_debugging_alone(small_onnx, tmp_path, logged, caplog):
    build_with(small_onnx, tmp_path / "quiet.engine")
    assert logged
    assert not any("TensorRT info" in line for line in logged)
    caplog.set_level(logging.DEBUG, "evodeploy")
    build_with(small_onnx, tmp_path / "loud.engine")
    assert sum("TensorRT info" in line or "TensorRT verbose" in line for line in logged) > 20
