from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from benchmark.fakes import INFO, planned, raced
from cases import SMALL
from fake_engines import FakeEngine
from graphs import restated
from onnx import numpy_helper

from evodeploy.benchmark import plans, row_specs, usual
from evodeploy.benchmark.plans import Builds
from evodeploy.benchmark.report.speedups import over_dense
from evodeploy.benchmark.row_specs import row_specs_of
from evodeploy.benchmark.subject import subject_of
from evodeploy.benchmark.usual import usual_engines
from evodeploy.engines.tensorrt.sidecar import Profile
from evodeploy.errors import RuntimeFailedError, UsageError
from evodeploy.graph.precision import reduced_from_onnx
from evodeploy.models.zoo import dense_twin
from evodeploy.onnx_files import read_onnx, write_onnx


def rows_of(paths, engines, precisions=("fp32",)):
    with row_specs_of(subject_of(paths), engines, precisions, threads=1) as specs:
        return [(c.engine, c.role, c.precision, c.artefact) for c in specs]


def test_a_checkpoint_is_exported_for_the_onnx_rows(small_checkpoint, small_onnx, monkeypatch):
    monkeypatch.setattr(row_specs, "_exported", lambda model, path: restated(small_onnx, path))
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
    with row_specs_of(subject_of([small_checkpoint]), ["torch"], ["fp32"], threads=1) as specs:
        evo, dense = (spec.flops for spec in specs)
    assert 0.5 * dense < evo < dense


def test_without_the_network_its_rows_say_why(small_onnx, tmp_path):
    onnx = tmp_path / "small.onnx"
    onnx.write_bytes(small_onnx.read_bytes())
    with row_specs_of(subject_of([onnx]), ["torch", "onnxruntime"], ["fp32"], threads=1) as specs:
        rows = raced(specs, [1])
    found = [(row.spec.engine, row.spec.role, row.timing is not None) for row in rows]
    assert [entry for entry in found if entry[2]] == [("onnxruntime", "evo", True)]
    assert "not next to its export" in next(row.reason for row in rows if row.spec.engine == "torch")


def test_a_network_too_large_for_an_onnx_file_has_rows_of_pytorch_alone(small_checkpoint, monkeypatch):
    monkeypatch.setattr(row_specs, "builder_problem", lambda: None)
    monkeypatch.setattr(plans, "load_flavour", lambda: SimpleNamespace(name="tensorrt"))
    monkeypatch.setattr("evodeploy.exporter.to_onnx.LARGEST", 100_000)
    names, builds = ["torch", "onnxruntime", "tensorrt"], Builds((1,), Path("cache"))
    with row_specs_of(subject_of([small_checkpoint]), names, ["fp32"], 1, builds) as specs:
        rows = raced(specs, [1])
    assert [row.spec.engine for row in rows] == ["torch", "onnxruntime", "tensorrt", "torch", "onnxruntime"]
    for row in rows:
        assert (row.timing is not None) == (row.spec.engine == "torch")
        assert ("an ONNX file holds up to 0.00 GB" in row.reason) == (row.spec.engine != "torch")


def test_random_weights_judge_no_file(small_onnx, tmp_path, monkeypatch):
    monkeypatch.setattr(row_specs, "_exported", lambda model, path: restated(small_onnx, path))
    onnx = restated(small_onnx, tmp_path / "trained.onnx", model="evo_deit_tiny_patch16_224")
    with row_specs_of(subject_of([onnx]), ["torch", "onnxruntime"], ["fp32"], threads=1) as found:
        assert [(row.engine, row.role, row.random) for row in found] == [
            ("torch", "evo", True), ("onnxruntime", "evo", False),
            ("torch", "dense", True), ("onnxruntime", "dense", True),
        ]  # fmt: skip
        rows = raced(found[:2], [1])
    assert [(row.timing is not None, row.verdict) for row in rows] == [(True, None), (True, None)]


def test_a_dense_model_is_its_own_twin(tmp_path, small):
    from evodeploy.models.loaded import reconfigured
    from evodeploy.models.saving import save_checkpoint

    save_checkpoint(reconfigured(small, dense_twin(SMALL)), tmp_path / "dense.pth")
    assert rows_of([tmp_path / "dense.pth"], ["torch"]) == [("torch", "evo", "fp32", "")]


def test_unknown_engines_and_precisions_are_refused(small_checkpoint):
    with pytest.raises(UsageError, match="no engine is called 'torhc'"):
        rows_of([small_checkpoint], ["torhc"])
    with pytest.raises(UsageError, match="no precision is called 'fp8'"):
        rows_of([small_checkpoint], ["torch"], ("fp8",))


def test_the_precision_of_a_row_is_that_of_its_file(small_onnx, tmp_path):
    half = tmp_path / "half.onnx"
    write_onnx(reduced_from_onnx(read_onnx(small_onnx), "fp16").model, half)
    with row_specs_of(subject_of([small_onnx, half]), ["onnxruntime"], ["fp32"], threads=1) as specs:
        rows = raced(specs, [1])
    found = [(row.spec.artefact, row.precision) for row in rows[:2]]
    assert found == [("small.onnx", "fp32"), ("half.onnx", "fp16")]


def test_engines_that_need_a_gpu_are_not_usual_where_there_is_none(small_checkpoint):
    assert usual_engines(subject_of([small_checkpoint])) == ("torch", "torch-compile", "onnxruntime", "openvino")


def test_a_dense_engine_that_is_given_is_the_twins_row(small_onnx, small_checkpoint, tmp_path):
    dense = planned(restated(small_onnx, tmp_path / "d.onnx", keep_ratios=(1.0, 1.0)), tmp_path / "d.engine")
    mine = planned(small_onnx, tmp_path / "m.engine")
    given = [small_checkpoint, dense, mine, small_onnx, tmp_path / "d.onnx"]
    assert rows_of(given, ["tensorrt", "onnxruntime"]) == [
        ("tensorrt", "evo", "fp16", "m.engine"),
        ("onnxruntime", "evo", "fp32", "small.onnx"),
        ("tensorrt", "dense", "fp16", "d.engine"),
        ("onnxruntime", "dense", "fp32", "d.onnx"),
    ]


@pytest.fixture
def gpu(monkeypatch, small_onnx):
    """A GPU as far as a bench asks for one; exports and what reaches the cache are played, and the latter kept."""
    requests = []

    def cached(request, cache):
        requests.append(request)
        if request.precision == "bf16":
            raise RuntimeFailedError("no kernel for you")
        request.output.write_bytes(b"x")

    monkeypatch.setattr(row_specs, "driver_problem", lambda: None)
    monkeypatch.setattr(row_specs, "builder_problem", lambda: None)
    monkeypatch.setattr(row_specs, "_exported", lambda model, path: restated(small_onnx, path))
    monkeypatch.setattr(plans, "cached_build", cached)
    monkeypatch.setattr(plans, "load_flavour", lambda: SimpleNamespace(name="tensorrt"))
    return requests


def built_rows(paths, precisions=("fp32", "fp16")):
    builds = Builds((8, 1), Path("cache"))
    with row_specs_of(subject_of(paths), ["tensorrt"], precisions, 1, builds) as found:
        return [(c.role, c.precision, c.artefact) for c in found if not c.cuda_graph]


def test_the_engines_that_are_missing_are_built_for_the_model_and_its_twin(small_checkpoint, gpu):
    assert built_rows([small_checkpoint]) == [
        ("evo", "fp32", "evo.tensorrt.fp32.engine"),
        ("evo", "fp16", "evo.tensorrt.fp16.engine"),
        ("dense", "fp32", "dense.tensorrt.fp32.engine"),
        ("dense", "fp16", "dense.tensorrt.fp16.engine"),
    ]
    assert {request.profiles for request in gpu} == {((1, 1, 1), (2, 8, 8))}
    assert {(request.runtime, *request.options.chosen) for request in gpu} == {("tensorrt",)}


def test_one_engine_is_built_for_all_keep_ratios_and_the_twin(small_checkpoint, small_elastic, gpu):
    given = [small_checkpoint, small_elastic]
    assert built_rows(given, ("fp16",)) == [(role, "fp16", "evo.tensorrt.fp16.engine") for role in ("evo", "dense")]
    assert [request.onnx for request in gpu] == [small_elastic]


def test_the_twin_of_a_given_engine_is_built_as_that_was(small_checkpoint, small_onnx, tmp_path, gpu):
    how = {"profiles": (Profile(1, 4, 16),), "version_compatible": True, "tf32": False, "precision": "fp16"}
    given = planned(small_onnx, tmp_path / "m.engine", **how)
    assert built_rows([small_checkpoint, given], ("fp32",)) == [
        ("evo", "fp16", "m.engine"),
        ("evo", "fp32", "evo.tensorrt.fp32.engine"),
        ("dense", "fp32", "dense.tensorrt.fp32.engine"),
        ("dense", "fp16", "dense.tensorrt.fp16.engine"),
    ]
    half = gpu[-1]
    assert (half.profiles, half.runtime) == (((1, 4, 16),), "tensorrt")
    assert half.options.chosen == {"version_compatible": True, "tf32": False}


def test_the_twin_of_a_quantized_engine_computes_the_rest_as_that_does(small_checkpoint, small_onnx, tmp_path, gpu):
    given = planned(small_onnx, tmp_path / "m.engine", precision="int8", rest="fp16")
    twin = restated(small_onnx, tmp_path / "d.onnx", keep_ratios=(1.0, 1.0))
    model = read_onnx(twin)
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((2, 2), np.int8), "quantized"))
    write_onnx(model, twin)
    assert ("dense", "int8", "dense.tensorrt.int8.engine") in built_rows([small_checkpoint, given, twin], ("fp16",))
    assert [request.precision for request in gpu if request.onnx == twin] == ["fp16"]


def test_each_tensorrt_has_rows_and_a_twin_of_its_own(small_checkpoint, small_onnx, tmp_path, gpu):
    given = [planned(small_onnx, tmp_path / f"{name}.engine", runtime=name) for name in ("tensorrt", "tensorrt-rtx")]
    builds = Builds((1,), Path("cache"))
    with row_specs_of(subject_of([small_checkpoint, *given]), ["tensorrt"], ["fp16"], 1, builds) as found:
        rows = [(one.engine, one.role, one.artefact) for one in found if not one.cuda_graph]
    assert rows == [
        ("tensorrt", "evo", "tensorrt.engine"),
        ("tensorrt-rtx", "evo", "tensorrt-rtx.engine"),
        ("tensorrt", "dense", "dense.tensorrt.fp16.engine"),
        ("tensorrt-rtx", "dense", "dense.tensorrt-rtx.fp16.engine"),
    ]


def test_an_onnx_of_reduced_precision_or_fixed_batch_is_built_as_it_is(small_checkpoint, small_onnx, tmp_path, gpu):
    half = reduced_from_onnx(read_onnx(small_onnx), "fp16").model
    half.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    write_onnx(half, tmp_path / "half.onnx")
    assert built_rows([small_checkpoint, tmp_path / "half.onnx"], ("fp32",))[0] == (
        "evo",
        "fp16",
        "evo.tensorrt.fp16.engine",
    )
    assert (gpu[0].onnx, gpu[0].profiles) == (tmp_path / "half.onnx", ())


def test_a_build_that_fails_is_a_row_with_its_reason(small_checkpoint, gpu):
    builds = Builds((1,), Path("cache"))
    with row_specs_of(subject_of([small_checkpoint]), ["tensorrt"], ["bf16"], 1, builds) as found:
        rows = raced(found, [1])
    assert [(row.spec.role, row.reason) for row in rows] == [(role, "no kernel for you") for role in ("evo", "dense")]


def test_without_a_home_a_bench_has_rows_with_that_reason(small_checkpoint, gpu, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with row_specs_of(subject_of([small_checkpoint]), ["tensorrt"], ["fp16"], 1, Builds((1,), None)) as found:
        rows = raced(found, [1])
    assert {row.reason for row in rows} == {
        "there is no folder for the engine cache, as no home folder is known: name one with --engine-cache"
    }


def homeless():
    raise RuntimeError("Could not determine home directory.")


def test_tensorrt_rows_have_a_ratio_over_their_twin(small_checkpoint, gpu, monkeypatch):
    monkeypatch.setattr(row_specs, "open_engine", lambda path, name, options: FakeEngine(INFO))
    builds = Builds((2,), Path("cache"))
    with row_specs_of(subject_of([small_checkpoint]), ["tensorrt"], ["fp16"], 1, builds) as found:
        rows = raced(found, [2])
    over = {(row.spec.role, row.label): over_dense(row, rows) is not None for row in rows}
    assert over == {
        ("evo", "tensorrt fp16"): True, ("evo", "tensorrt fp16 graph"): True,
        ("dense", "tensorrt fp16"): False, ("dense", "tensorrt fp16 graph"): False,
    }  # fmt: skip


def test_where_none_can_be_built_one_row_says_why(small_checkpoint, monkeypatch):
    builds = Builds((1,), Path("cache"))
    monkeypatch.setattr(plans, "driver_problem", lambda: "the NVIDIA driver sees no GPU")
    for how, message in ((builds, "none is built: the NVIDIA driver sees no GPU"), (None, "none is built: --no-build")):
        with row_specs_of(subject_of([small_checkpoint]), ["tensorrt"], ["fp32", "fp16"], 1, how) as found:
            (row,) = raced(found, [1])
        assert row.reason.endswith(message)


def test_tensorrt_for_rtx_alone_is_usual_where_there_is_a_gpu(small_checkpoint, monkeypatch):
    monkeypatch.setattr(plans, "driver_problem", lambda: None)
    monkeypatch.setattr(usual, "driver_problem", lambda: "no GPU for ONNX Runtime")
    assert usual_engines(subject_of([small_checkpoint]))[-1] == "tensorrt"
