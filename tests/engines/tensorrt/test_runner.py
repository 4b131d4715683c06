"""Plans on a GPU: real pycuda on a CUDA driver of host memory. tests/cuda_shim/README.md says what this proves."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cuda_shim.plans import write_elastic, write_exact, write_half, write_plan
from onnx import TensorProto, numpy_helper

from evodeploy.engines.tensorrt import cuda
from evodeploy.onnx_files import read_onnx, write_onnx
from evodeploy.specs import ASKED

SHIM = Path(__file__).parents[2] / "cuda_shim"


@pytest.fixture
def plan(tmp_path, small_onnx):
    """A function that writes a plan as the fake reads it, with its record."""

    def write(profiles=((1, 4, 16),), content=None, onnx=small_onnx, **changes):
        return write_plan(tmp_path / "small.engine", onnx, profiles, content, **changes)

    return write


@pytest.fixture
def on_shim(libraries, small_onnx, tmp_path):
    """Run a case of cuda_shim/cases.py in a process of its own; what the shim found wrong, line by line, and stderr."""
    pycuda, folder = libraries

    def run(case, plan, onnx=small_onnx):
        report = tmp_path / "report"
        paths = [str(pycuda), str(SHIM), str(SHIM.parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "LD_LIBRARY_PATH": str(folder),
            "SHIM_REPORT": str(report),
        }
        command = [sys.executable, str(SHIM / "cases.py"), case, str(plan), str(onnx)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return report.read_text().splitlines(), done.stderr

    return run


@pytest.mark.parametrize(
    "case", ["batches_in_turn", "two_gpus", "streamed", "several_threads", "shared", "resident", "graphs",
             "clock_of_graphs", "graphs_refused", "recorded_next_to_others", "recorded_next_to_making",
             "disturbed_recording", "next_to_torch", "staged_in_chunks", "no_room", "no_gpu_to_be_had",
             "failing_enqueue", "context_lost", "left_open", "profiled"],
)  # fmt: skip
def test_on_the_shim(on_shim, plan, case):
    assert on_shim(case, plan()) == ([], "")


def test_memory_does_not_grow_with_graphs(on_shim, plan, tmp_path):
    path = write_exact(tmp_path / "exact.onnx")  # takes no time
    assert on_shim("memory_of_graphs", plan([[1, 8, 36]], onnx=path), path) == ([], "")


def test_the_narrowest_profile_that_fits_is_taken_and_gaps_are_refused_or_filled(on_shim, plan):
    assert on_shim("gaps_between_profiles", plan([[1, 1, 1], [8, 12, 16], [8, 8, 8]])) == ([], "")


def test_rtx_keeps_finished_kernels_and_records_graphs_by_itself(on_shim, plan):
    path = plan(runtime="tensorrt-rtx", runtime_version="1.7.1.116", targets=("sm86", "sm89"))
    assert on_shim("rtx_cache_and_graphs", path) == ([], "")


def test_tensors_have_the_types_that_the_record_says(on_shim, plan, tmp_path):
    path = write_half(tmp_path / "half.onnx")
    assert on_shim("half_precision", plan(onnx=path), path) == ([], "")


@pytest.mark.parametrize(
    "case", ["elastic", "elastic_built", "elastic_in_threads", "elastic_graphs", "elastic_over_static"]
)
def test_the_tokens_of_a_run_are_its_own(on_shim, plan, tmp_path, case):
    path = write_elastic(tmp_path / "elastic.onnx")
    assert on_shim(case, plan(onnx=path), path) == ([], "")


def test_the_fake_reports_every_mistake_with_a_shape_tensor(on_shim, plan, tmp_path):
    path = write_elastic(tmp_path / "elastic.onnx")
    on_shim("elastic_misuse", plan(onnx=path), path)


def test_a_bench_builds_the_engines_that_it_lacks_once(on_shim, plan):
    assert on_shim("bench_builds", plan()) == ([], "")


@pytest.mark.slow
def test_a_bench_has_the_ratio_of_an_engine_over_its_twin(on_shim, plan):
    assert on_shim("bench_over_dense", plan()) == ([], "")


def test_the_shim_reports_every_mistake(on_shim, plan):
    on_shim("misuse", plan())


def test_a_context_is_lost_where_cuda_h_says_that_the_process_or_context_must_end(libraries):
    header = (libraries[0] / "include" / "cuda.h").read_text()
    codes = re.findall(r"/\*\*((?:[^*]|\*(?!/))*)\*/\s*CUDA_ERROR_\w+\s*= (\d+)", header)
    said = {int(code): " ".join(why.replace("*", " ").split()) for why, code in codes}
    last = {code for code, why in said.items() if "terminated and relaunched" in why or "must be destroyed" in why}
    destroyed = {709}  # of which there is no need to say so
    assert len(said) > 80
    assert last | destroyed == cuda._STICKY


def test_a_plan_takes_other_weights(on_shim, plan, small_onnx, tmp_path):
    other = tmp_path / "other.onnx"
    model = read_onnx(small_onnx)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(0.9), tensor.name))
    write_onnx(model, other)
    before = tmp_path / "before.onnx"
    shutil.copy(small_onnx, before)
    assert on_shim("refit", plan(onnx=before, refittable=True, stripped=True), other) == ([], "")


def test_a_refitted_plan_keeps_in_fp32_what_it_kept(on_shim, plan, small_onnx, tmp_path):
    before = shutil.copy(small_onnx, tmp_path / "before.onnx")
    layer = next(node.name for node in read_onnx(small_onnx).graph.node if "mlp.fc1/MatMul" in node.name)
    how = {"refittable": True, "precision": "fp16", "kept_fp32": {layer: ASKED}, "largest_activation": "before"}
    assert on_shim("refit_kept", plan(onnx=before, **how)) == ([], "")


def test_a_plan_that_tensorrt_refuses(on_shim, plan):
    assert on_shim("bad_plan", plan(content="no plan")) == ([], "")


def test_a_plan_for_another_gpu(on_shim, plan):
    assert on_shim("another_gpu", plan(architecture="sm50")) == ([], "")
