"""The real engines, held to one contract."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from versions import needs_bf16

from evodeploy.engines.opener import open_engine
from evodeploy.errors import BadFileError, InputError, UsageError
from evodeploy.specs import EngineOptions

ENGINES = ["torch", "onnxruntime", "openvino"]


@pytest.fixture(params=ENGINES)
def engine(request, small_checkpoint, small_onnx):
    path = small_checkpoint if request.param == "torch" else small_onnx
    with open_engine(path, request.param, EngineOptions(threads=1)) as engine:
        yield engine


def test_specs_batch_and_metadata(engine):
    assert str(engine.inputs[0]) == "images float32 (batch, 3, 64, 64)"
    assert str(engine.outputs[0]) == "logits float32 (batch, 10)"
    assert (engine.batch.min, engine.batch.max) == (1, None)
    assert engine.info.model == "evo_deit_test"
    assert engine.info.keep_ratios == (0.5, 0.5)


def test_outputs_are_what_the_specs_promise(engine, small_images):
    got = engine.run(small_images)
    assert list(got) == [spec.name for spec in engine.outputs]
    for spec in engine.outputs:
        assert got[spec.name].dtype == spec.dtype
        assert got[spec.name].shape == (3, *spec.shape[1:])


def test_a_bad_call_leaves_a_working_engine(engine, small_images):
    before = engine.run(small_images)["logits"]
    with pytest.raises(InputError):
        engine.run(small_images.astype(np.float16))
    with pytest.raises(InputError):
        engine.run(small_images[:, :, :32])
    np.testing.assert_array_equal(engine.run(small_images)["logits"], before)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_threads_may_run_on_any_core(name, small_onnx, small_images):
    """An engine that pins its one thread takes the first core: so would every other process with such an engine."""
    code = f"""
import numpy, os, threading, evodeploy
from evodeploy.specs import EngineOptions
seen, done = set(), threading.Event()
def watch():
    while not done.is_set():
        seen.update(len(os.sched_getaffinity(int(thread))) for thread in os.listdir("/proc/self/task"))
with evodeploy.open_engine({str(small_onnx)!r}, {name!r}, EngineOptions(threads=1)) as engine:
    watching = threading.Thread(target=watch)
    watching.start()
    engine.run(numpy.zeros((512, 3, 64, 64), "float32"))
    done.set()
    watching.join()
print(seen)
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output == f"{{{len(os.sched_getaffinity(0))}}}\n"


def test_results_are_the_callers_to_keep(engine, small_images):
    first = engine.run(small_images)["logits"]
    kept = first.copy()
    engine.run(small_images * 2)
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("damage", ["half", "garbage", "empty"])
def test_damaged_files_are_refused_in_one_sentence(tmp_path, small_onnx, name, damage):
    data = small_onnx.read_bytes()
    path = tmp_path / "bad.onnx"
    path.write_bytes({"half": data[: len(data) // 2], "garbage": b"no network" * 9, "empty": b""}[damage])
    with pytest.raises(BadFileError) as raised:
        open_engine(path, name)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_engine_is_chosen_by_the_file(small_onnx, small_checkpoint):
    with open_engine(small_onnx) as engine:
        assert engine.name == "onnxruntime"
    with open_engine(small_checkpoint) as engine:
        assert engine.name == "torch"
    with pytest.raises(UsageError, match="'tensorrt' does not run .*small.onnx: expected onnxruntime or openvino"):
        open_engine(small_onnx, "tensorrt")
    with pytest.raises(UsageError, match="'openvino' does not run .*small.pth: expected torch .* or an export"):
        open_engine(small_checkpoint, "openvino")
    with pytest.raises(UsageError, match="cannot infer what"):
        open_engine(small_onnx.with_suffix(".txt"))


@needs_bf16
def test_an_engine_is_chosen_by_what_is_asked_of_it(small_onnx):
    with open_engine(small_onnx, options=EngineOptions(precision="bf16")) as engine:
        assert engine.name == "openvino"
    with open_engine(small_onnx, options=EngineOptions(threads=1)) as engine:
        assert engine.name == "onnxruntime"
    with pytest.raises(UsageError, match="has no option cache"):
        open_engine(small_onnx, options=EngineOptions(cache=small_onnx.parent))


@pytest.mark.slow  # half a minute of compiling
def test_compiled_pytorch_computes_the_same(small_checkpoint, small_images):
    with open_engine(small_checkpoint, "torch") as eager, open_engine(small_checkpoint, "torch-compile") as compiled:
        expected = eager.run(small_images)["logits"]
        got = compiled.run(small_images)["logits"]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("engine", "options", "named"),
    [
        ("onnxruntime", EngineOptions(cuda_graph=True), "cuda_graph"),
        ("openvino", EngineOptions(device="cuda"), "device cuda"),
        ("onnxruntime", EngineOptions(precision="bf16"), "precision"),
        ("openvino", EngineOptions(precision="int8"), "export it with --int8"),
    ],
)
def test_an_option_that_cannot_be_honoured_is_refused(small_onnx, engine, options, named):
    with pytest.raises(UsageError, match=named):
        open_engine(small_onnx, engine, options)


def test_a_checkpoint_refuses_options_that_pytorch_would_ignore(small_checkpoint):
    with pytest.raises(UsageError, match="'torch' has no option cache"):
        open_engine(small_checkpoint, options=EngineOptions(cache=small_checkpoint.parent))
