from __future__ import annotations

import contextlib
import dataclasses

import pytest
import torch
from benchmark.fakes import INFO, fake, raced, report
from fake_engines import FakeEngine
from graphs import restated

from evodeploy.benchmark.measure import peak
from evodeploy.benchmark.row_spec import without_tf32
from evodeploy.benchmark.row_specs import row_specs_of
from evodeploy.benchmark.subject import subject_of
from evodeploy.benchmark.usual import usual_engines


def test_on_a_gpu_every_mode_of_torch_compile_is_usual(small_checkpoint, monkeypatch):
    monkeypatch.setattr("evodeploy.benchmark.usual.driver_problem", lambda: None)
    assert usual_engines(subject_of([small_checkpoint]))[:5] == (
        "torch", "torch-channels-last", "torch-compile", "torch-compile-reduce-overhead", "torch-compile-max-autotune",
    )  # fmt: skip


def test_pytorch_runs_in_half_precision_and_says_what_it_cannot_do(small_checkpoint):
    engines = ["torch", "torch-autocast", "torch-compile-reduce-overhead"]
    with row_specs_of(subject_of([small_checkpoint]), engines, ["fp32", "bf16"], threads=1) as specs:
        rows = raced([spec for spec in specs if spec.role == "evo"], [2])
    assert [(row.label, row.timing is not None, row.wrong) for row in rows] == [
        ("torch fp32", True, False),
        ("torch bf16", True, False),
        ("torch-autocast fp32", False, False),
        ("torch-autocast bf16", True, False),
        ("torch-compile-reduce-overhead fp32", False, False),
        ("torch-compile-reduce-overhead bf16", False, False),
    ]
    assert "is the same as torch" in rows[2].reason
    assert "is the same as torch-compile" in rows[4].reason


@pytest.mark.parametrize("tf32", [True, False])
def test_all_engines_get_one_policy_of_tf32(small_onnx, small_checkpoint, monkeypatch, tf32):
    asked = []

    def opened(*file, options, **how):
        asked.append(options.tf32)
        return FakeEngine(INFO)

    monkeypatch.setattr(
        "evodeploy.benchmark.row_specs.open_engine", lambda path, name, options: opened(options=options)
    )
    monkeypatch.setattr("evodeploy.benchmark.row_specs._exported", lambda model, path: restated(small_onnx, path))
    monkeypatch.setattr("evodeploy.engines.torch_network.torch_engine", opened)
    subject = subject_of([small_checkpoint, small_onnx])
    with row_specs_of(subject, ["torch", "onnxruntime-cuda"], ["fp32"], threads=1, tf32=tf32) as specs:
        for spec in specs:
            spec.open()
    assert asked == [tf32] * 4


def tf32_engine(precision="fp32"):
    def opened():
        engine = FakeEngine(INFO, device_seconds=0.25)
        engine.tf32 = True
        return engine

    return dataclasses.replace(fake("tensorrt", precision=precision, flops=1e6), open=opened)


def test_a_row_that_may_be_tf32_says_so_and_is_compared_with_the_peak_of_that():
    _, resident = rows = raced([tf32_engine()], [2])
    assert [row.label for row in rows] == ["tensorrt tf32"] * 2
    found = report(rows, {("cuda:0", "tf32"): 1e9, ("cuda:0", "fp32"): 1e8})
    assert found.to_dict()["results"][1]["precision"] == "tf32"
    assert found.share_of_peak(resident) == pytest.approx(8 * 1e6 / 1e9)


def test_without_tf32_an_engine_that_may_compute_so_is_refused_but_not_in_half_precision():
    refused, half, _ = raced([without_tf32(tf32_engine()), without_tf32(tf32_engine("fp16"))], [2])
    assert "which --no-tf32 excludes" in refused.reason
    assert (half.label, half.timing is not None) == ("tensorrt fp16", True)


def test_the_peak_is_measured_under_the_policy_of_its_name(monkeypatch):
    allowed = []

    def watched(product, device):
        allowed.append(torch.backends.cuda.matmul.allow_tf32)
        return 1.0

    monkeypatch.setattr(peak, "_seconds", watched)
    monkeypatch.setattr(peak, "SIDES", {"cpu": (8,)})
    found = peak.peaks([("cpu", "tf32"), ("cpu", "bf16")], threads=1)
    assert found == {("cpu", "tf32"): 1024, ("cpu", "bf16"): 1024}
    assert allowed == [True, False] * peak.ROUNDS


def test_the_peak_of_a_gpu_is_timed_in_its_own_stream(monkeypatch):
    """An event without a stream is recorded in that of the GPU that is current."""
    current, recorded = ["cuda:0"], []

    class Event:
        def __init__(self, device, enable_timing):
            pass

        def record(self):
            recorded.append(current[-1])

        def synchronize(self):
            pass

        def elapsed_time(self, end):
            return 40.0

    @contextlib.contextmanager
    def made_current(device):
        current.append(device)
        yield
        current.pop()

    monkeypatch.setattr(torch, "Event", Event)
    monkeypatch.setattr(torch.cuda, "device", made_current)
    assert peak._seconds(lambda: None, "cuda:1") == pytest.approx(0.04)
    assert recorded == ["cuda:1", "cuda:1"]
