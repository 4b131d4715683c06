"""TensorRT for RTX builds here for real: plans for named GPUs, on a machine without one."""

from __future__ import annotations

import dataclasses
import math
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from data_kinds import listing
from graphs import value, write_graph
from onnx import TensorProto, helper

from evodeploy.builder import decisions
from evodeploy.builder import onnx_to_plan as builder
from evodeploy.builder.build_log import BuildLog
from evodeploy.builder.engine import build_engine
from evodeploy.builder.onnx_to_plan import check_profile
from evodeploy.builder.options import BuilderOptions
from evodeploy.builder.request import BuildRequest
from evodeploy.engines.opener import open_engine
from evodeploy.engines.tensorrt import flavour
from evodeploy.engines.tensorrt.sidecar import Profile, read_sidecar, sidecar_path, write_sidecar
from evodeploy.errors import BadFileError, RuntimeFailedError, UnavailableError, UsageError
from evodeploy.files import sha256
from evodeploy.graph.quantization import quantized_from_onnx
from evodeploy.inspection.program import read_program
from evodeploy.machine import driver
from evodeploy.onnx_files import read_onnx, write_onnx
from evodeploy.specs import TensorSpec

IMAGES = TensorSpec("images", "float32", (None, 3, 64, 64))
UNUSED = {"unused": np.zeros(4, np.float32)}  # a weight that no node takes


def request(onnx_path, output, **options):
    return BuildRequest(onnx_path, output, **({"runtime": "tensorrt-rtx", "targets": ("sm89",)} | options))


@pytest.fixture(scope="module")
def plan(small_onnx, tmp_path_factory):
    path = tmp_path_factory.mktemp("plan") / "small.engine"
    build_engine(request(small_onnx, path, precision="fp16", profiles=((1, 4, 16),)))
    return path


def test_a_disk_that_is_full_for_the_log_costs_no_engine(small_onnx, tmp_path):
    path = tmp_path / "x.engine"
    with pytest.raises(UsageError, match=r"x.engine is complete, its log /dev/full is not: No space left on device"):
        build_engine(request(small_onnx, path, profiles=((1, 1, 1),), log=Path("/dev/full")))
    assert sha256(path) == read_sidecar(path).plan_sha256


def test_the_sidecar_says_what_was_built(plan, small_onnx):
    record = read_sidecar(plan)
    assert (record.runtime, record.targets, record.precision) == ("tensorrt-rtx", ("sm89",), "fp16")
    assert record.profiles == (Profile(1, 4, 16),)
    assert [str(spec) for spec in record.inputs] == ["images float32 (batch, 3, 64, 64)"]
    assert [str(spec) for spec in record.outputs] == [
        "logits float32 (batch, 10)", "selected_0 int64 (batch, 32)", "selected_1 int64 (batch, 32)",
        "scores_0 float32 (batch, 64)", "scores_1 float32 (batch, 64)",
    ]  # fmt: skip
    assert (record.model.model, record.model.precision) == ("evo_deit_test", "fp16")
    assert record.plan_sha256 == sha256(plan)
    assert record.plan_bytes == plan.stat().st_size
    assert record.source_sha256 == sha256(small_onnx)
    assert any("TopK" in reason for reason in record.kept_fp32.values())
    assert [path.name for path in sorted(plan.parent.iterdir())] == ["small.engine", "small.engine.json"]


def test_an_fp16_plan_holds_half_the_weights_of_an_fp32_one(plan, small_onnx, tmp_path):
    full = build_engine(request(small_onnx, tmp_path / "full.engine", precision="fp32"))
    half = read_sidecar(plan)
    assert full.precision == "fp32"
    assert (full.tf32, full.may_be_tf32) == (True, True)  # TensorRT's default
    assert half.weights_bytes < 0.6 * full.weights_bytes


def test_one_engine_for_every_target_is_the_default_without_a_gpu(small_onnx, tmp_path, logged):
    record = build_engine(request(small_onnx, tmp_path / "all.engine", precision="fp16", targets=()))
    assert record.targets == ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")
    assert "building for every target" in logged[0]


@pytest.fixture
def gpu(monkeypatch):
    """A function that makes the driver say that a GPU is here."""

    def appears(architecture):
        monkeypatch.setattr(flavour, "driver_problem", lambda: None)
        monkeypatch.setattr("evodeploy.builder.decisions.driver_problem", lambda: None)
        monkeypatch.setattr(flavour, "architecture", lambda: architecture)

    return appears


def test_rtx_builds_for_the_gpu_that_is_here(small_onnx, tmp_path, gpu, logged):
    gpu("sm86")
    record = build_engine(request(small_onnx, tmp_path / "here.engine", precision="fp16", targets=()))
    assert (record.targets, record.architecture) == (("sm86",), "")
    assert logged[0] == "building for the GPU here, sm86: name others with --target"
    assert re.search(rb"accelerators=\{sm86 ?\}", (tmp_path / "here.engine").read_bytes())


@pytest.mark.parametrize(("here", "named"), [("sm90", "sm90"), ("", "of unknown architecture")])
def test_a_gpu_that_rtx_does_not_know_needs_a_named_target(small_onnx, tmp_path, gpu, here, named):
    gpu(here)
    message = rf"does not build for the GPU here \({named}\): use --runtime tensorrt for it, or name .* with --target"
    with pytest.raises(UnavailableError, match=message):
        build_engine(request(small_onnx, tmp_path / "x.engine", precision="fp16", targets=()))
    with pytest.raises(UsageError, match="no FP32 engine for sm75"):
        gpu("sm75")
        build_engine(request(small_onnx, tmp_path / "x.engine", precision="fp32", targets=()))
    assert list(tmp_path.iterdir()) == []


def test_fp32_leaves_out_the_target_without_fp32_kernels_and_says_so(small_onnx, tmp_path, logged):
    record = build_engine(request(small_onnx, tmp_path / "all.engine", precision="fp32", targets=()))
    assert "sm75" not in record.targets
    assert any("not for sm75" in line for line in logged)
    with pytest.raises(UsageError, match="no FP32 engine for sm75"):
        build_engine(request(small_onnx, tmp_path / "x.engine", precision="fp32", targets=("sm75",)))


def test_int8_comes_with_the_onnx_and_not_from_a_request(small_onnx, tmp_path):
    with pytest.raises(UsageError, match="holds FP32 weights: export it with --int8 --images"):
        build_engine(request(small_onnx, tmp_path / "x.engine", precision="int8"))


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ((8, 4, 16), "min 8, opt 4, max 16 are out of order"),
        ((0, 4, 16), "out of order"),
        ((4, None, 2), "out of order"),
        ((1, 1, 2**33), "larger than 2³¹ elements"),
    ],
)
def test_profiles_that_tensorrt_would_swallow_are_refused(small_onnx, tmp_path, batches, message):
    with pytest.raises(UsageError, match=message):
        build_engine(request(small_onnx, tmp_path / "x.engine", profiles=(batches,)))
    assert list(tmp_path.iterdir()) == []


def test_a_fixed_batch_takes_no_other_profile():
    fixed = TensorSpec("images", "float32", (4, 3, 64, 64))
    assert check_profile(Profile(4, 4, 4), fixed) == Profile(4, 4, 4)
    with pytest.raises(UsageError, match="fixed batch of 4"):
        check_profile(Profile(1, 4, 4), fixed)


def test_a_maximum_below_the_default_optimum_is_the_optimum(small_onnx, tmp_path):
    record = build_engine(request(small_onnx, tmp_path / "x.engine", precision="fp16", profiles=((None, None, 8),)))
    assert record.profiles == (Profile(1, 8, 8),)


def test_fp8_engines_build_for_ada_and_later(small_onnx, tmp_path, logged):
    generator = np.random.default_rng(0)
    pictures = generator.standard_normal((4, 3, 64, 64), dtype=np.float32)
    write_onnx(quantized_from_onnx(read_onnx(small_onnx), pictures, "fp8").model, tmp_path / "m.onnx")
    plan = tmp_path / "m.engine"
    record = build_engine(request(tmp_path / "m.onnx", plan, precision=None, targets=()))
    assert record.precision == "fp8"
    assert record.targets == ("sm89", "sm120", "sm121")
    assert any("not for sm75, sm80, sm86, which has no FP8 kernels" in line for line in logged)
    with pytest.raises(UsageError, match="no FP8 engine for sm75, sm80, sm86"):
        build_engine(request(tmp_path / "m.onnx", tmp_path / "x.engine", precision=None, targets=("sm86",)))


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_a_quantized_engine_with_fp16_elsewhere_fuses_every_attention(small_onnx, tmp_path, kind, logged):
    pictures = np.random.default_rng(0).standard_normal((4, 3, 64, 64), dtype=np.float32)
    write_onnx(quantized_from_onnx(read_onnx(small_onnx), pictures, kind).model, tmp_path / "m.onnx")
    kernels = {}
    for rest in (None, "fp16"):
        plan = tmp_path / f"{rest}.engine"
        record = build_engine(request(tmp_path / "m.onnx", plan, precision=rest))
        assert (record.precision, record.rest, record.model.precision) == (kind, rest, kind)
        assert read_sidecar(plan) == record
        program = read_program(plan, 1)
        assert program.attentions == (record.attentions if rest else 0)
        kernels[rest] = program.total
    assert kernels["fp16"] < 0.75 * kernels[None]
    assert any(f"building {kind.upper()} with FP16 around it" in line for line in logged)


def test_bf16_engines_build_for_the_targets_that_have_it(small, tmp_path, logged):
    from evodeploy.exporter.to_onnx import onnx_from_model

    write_onnx(onnx_from_model(small, opset=23), tmp_path / "m.onnx")
    record = build_engine(request(tmp_path / "m.onnx", tmp_path / "m.engine", precision="bf16", targets=()))
    assert (record.precision, record.model.precision) == ("bf16", "bf16")
    assert record.targets == ("sm80", "sm86", "sm89", "sm120", "sm121")
    assert any("not for sm75, which has no BF16 kernels" in line for line in logged)


def test_an_unknown_target_is_refused_with_those_there_are(small_onnx, tmp_path):
    with pytest.raises(UsageError, match="unknown target sm90: expected some of sm75, sm80"):
        build_engine(request(small_onnx, tmp_path / "x.engine", targets=("sm90",)))


@pytest.mark.parametrize("data", [b"", b"garbage that is no protobuf", None])
def test_files_that_tensorrts_parser_takes_for_networks_are_refused(small_onnx, tmp_path, data):
    path = tmp_path / "bad.onnx"
    whole = small_onnx.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if data is None else data)
    with pytest.raises(BadFileError):
        build_engine(request(path, tmp_path / "x.engine"))


def test_an_onnx_without_a_network_is_refused(tmp_path):
    path = write_graph(tmp_path / "empty.onnx", [], [], [])
    with pytest.raises(BadFileError, match="holds no network"):
        build_engine(request(path, tmp_path / "x.engine"))


def test_what_the_parser_refuses_is_named_with_its_node(tmp_path):
    node = helper.make_node("NonZero", ["images"], ["where"], "the_culprit")
    where = value("where", (2, "found"), TensorProto.INT64)
    path = write_graph(tmp_path / "refused.onnx", [node], [value("images", ("batch", 3))], [where], UNUSED)
    onnx.checker.check_model(path)
    with pytest.raises(BadFileError, match=r"NonZero the_culprit: "):
        build_engine(request(path, tmp_path / "x.engine"))


def test_a_type_that_numpy_lacks_is_refused(tmp_path):
    images, summed = (value(name, ("batch", 3), TensorProto.BFLOAT16) for name in ("images", "sum"))
    node = helper.make_node("Add", ["images", "images"], ["sum"])
    path = write_graph(tmp_path / "bf16.onnx", [node], [images], [summed])
    with pytest.raises(BadFileError, match="'images' of the ONNX is BF16, expected a type that NumPy has"):
        build_engine(request(path, tmp_path / "x.engine"))


def test_an_output_whose_length_is_not_known_is_refused(tmp_path):
    node = helper.make_node("Transpose", ["images"], ["turned"], perm=[1, 0])
    turned = value("turned", (3, "batch"))
    path = write_graph(tmp_path / "turned.onnx", [node], [value("images", ("batch", 3))], [turned], UNUSED)
    with pytest.raises(BadFileError, match=r"turned.onnx: the length of output 'turned' \(batch, \?\) is not known"):
        build_engine(request(path, tmp_path / "x.engine"))
    assert not (tmp_path / "x.engine").exists()


def test_a_plan_with_such_an_output_is_not_opened(plan, tmp_path):
    path = tmp_path / "older.engine"
    path.write_bytes(plan.read_bytes())
    record = read_sidecar(plan)
    outputs = (*record.outputs, TensorSpec("found", "int64", (None, None)))
    write_sidecar(dataclasses.replace(record, outputs=outputs), path)
    with pytest.raises(BadFileError, match=r"older.engine: the length of output 'found' \(batch, \?\)"):
        open_engine(path)


def test_fp32_of_an_fp16_file_is_refused(tmp_path, small_onnx):
    from evodeploy.graph.precision import reduced_from_onnx

    write_onnx(reduced_from_onnx(read_onnx(small_onnx), "fp16").model, tmp_path / "h.onnx")
    with pytest.raises(UsageError, match="holds FP16 weights"):
        build_engine(request(tmp_path / "h.onnx", tmp_path / "x.engine", precision="fp32"))


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_network_that_is_fp32_after_all_is_a_failure(small_onnx, precision):
    rtx, options = flavour.load_flavour("tensorrt-rtx"), BuilderOptions()
    with pytest.raises(
        RuntimeFailedError, match=rf"{precision.upper()} was asked for, but \d+ of \d+ products are FP32"
    ):
        builder.plan_from_onnx(small_onnx, rtx, (Profile(),), precision, ("sm89",), options, BuildLog())


def test_an_fp16_plan_may_be_larger_than_its_weights(small_onnx, tmp_path, monkeypatch):
    """TensorRT that says nothing of memory, and two profiles, each with kernels of its own."""
    monkeypatch.setattr("evodeploy.builder.build_log._MEMORY", re.compile("(?!)()()"))
    plan = tmp_path / "x.engine"
    record = build_engine(request(small_onnx, plan, precision="fp16", profiles=((1, 1, 1), (2, 4, 8))))
    weights = sum(math.prod(tensor.dims) for tensor in read_onnx(small_onnx).graph.initializer)
    assert record.weights_bytes is None
    assert record.plan_bytes > 4 * weights  # as an FP32 one would be


def test_an_onnx_that_is_replaced_meanwhile_is_built_as_it_was_read(small_onnx, tmp_path, monkeypatch):
    path, read = tmp_path / "m.onnx", decisions.read_onnx
    path.write_bytes(small_onnx.read_bytes())

    def replaced(source):
        model = read(source)
        source.write_bytes(b"another")
        return model

    monkeypatch.setattr(decisions, "read_onnx", replaced)
    record = build_engine(request(path, tmp_path / "x.engine", precision="fp32"))
    assert record.source_sha256 == sha256(small_onnx)


def test_progress_is_reported_and_can_cancel(small_onnx, tmp_path):
    phases = set()

    def count(phase, share):
        assert 0 < share <= 1
        phases.add(phase)
        return True

    build_engine(request(small_onnx, tmp_path / "x.engine", precision="fp16"), progress=count)
    assert len(phases) > 3
    with pytest.raises(KeyboardInterrupt):
        build_engine(request(small_onnx, tmp_path / "y.engine", precision="fp16"), lambda phase, share: False)
    assert listing(tmp_path) == ["x.engine", "x.engine.json"]


def test_running_a_plan_without_a_gpu_is_refused_before_any_runtime_is_touched(plan):
    if driver.driver_problem() is None:
        pytest.fail("this test is for machines without a GPU: run those marked gpu here")
    with pytest.raises(UnavailableError, match=r"runs on an NVIDIA GPU only, and here .*use the ONNX .*small\.onnx"):
        open_engine(plan)


def test_a_plan_without_its_record_is_refused(plan, tmp_path):
    lonely = tmp_path / "lonely.engine"
    lonely.write_bytes(plan.read_bytes())
    with pytest.raises(BadFileError, match=r"lonely\.engine\.json is missing"):
        open_engine(lonely)
    sidecar_path(lonely).write_text('{"profile": 3}')
    with pytest.raises(BadFileError, match="is not the record of an engine"):
        open_engine(lonely)


def test_attention_in_fp32_may_decompose_also_where_the_rest_is_fp16(tmp_path, small):
    from evodeploy.exporter.to_onnx import onnx_from_model

    proto = onnx_from_model(small, opset=23)
    write_onnx(proto, tmp_path / "m.onnx")
    record = build_engine(request(tmp_path / "m.onnx", tmp_path / "m.engine", precision="fp32"))
    assert record.precision == "fp32"
    kept = (next(node.name for node in proto.graph.node if node.op_type == "Attention"),)
    half = build_engine(
        request(tmp_path / "m.onnx", tmp_path / "half.engine", precision="fp16", targets=(), keep_fp32=kept)
    )
    assert half.kept_fp32[kept[0]] == "asked for"
    assert half.targets == ("sm80", "sm86", "sm89", "sm120", "sm121")  # kernels of SM75 multiply FP16 alone
    with pytest.raises(UsageError, match="--keep-fp32 is for --fp16 and --bf16"):
        build_engine(request(tmp_path / "m.onnx", tmp_path / "x.engine", keep_fp32=kept))
    with pytest.raises(UsageError, match="--keep-fp32 leaves no node to convert to FP16: name fewer"):
        build_engine(request(tmp_path / "m.onnx", tmp_path / "x.engine", precision="fp16", keep_fp32=("*",)))


def test_without_tensorrt_the_install_line_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(UnavailableError, match=r"pip install \"evodeploy\[tensorrt-rtx\]\""):
        flavour.load_flavour("tensorrt-rtx")
    with pytest.raises(UsageError, match="no runtime is called 'onnx'"):
        flavour.load_flavour("onnx")


@pytest.mark.parametrize(("version", "problem"), [("8.6.1", "8.6.1 is older than 10.9"), ("10.9.0.34", "")])
def test_a_tensorrt_that_is_older_than_those_that_work_is_refused(monkeypatch, version, problem):
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__=version))
    if not problem:
        assert flavour.load_flavour("tensorrt").version == version
        return
    with pytest.raises(UnavailableError, match=rf"\(tensorrt: {problem}\): pip install \"evodeploy\[tensorrt\]\""):
        flavour.load_flavour("tensorrt")


@pytest.mark.parametrize(("problem", "extra"), [(None, "tensorrt"), ("there is none", "tensorrt-rtx")])
def test_the_tensorrt_that_is_named_is_the_one_for_this_machine(monkeypatch, problem, extra):
    monkeypatch.setattr(flavour, "driver_problem", lambda: problem)
    for module in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UnavailableError, match=rf"pip install \"evodeploy\[{extra}\]\""):
        flavour.load_flavour()


def test_a_builder_that_cannot_start_is_reported(monkeypatch, small_onnx):
    ours = flavour.load_flavour("tensorrt-rtx")

    class Nothing:
        def __init__(self, logger):
            raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(ours.trt, "Builder", Nothing)
    with pytest.raises(UnavailableError, match="cannot start here"):
        builder.plan_from_onnx(small_onnx, ours, (Profile(),), "fp32", ("sm89",), BuilderOptions(), BuildLog())
