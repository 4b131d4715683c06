"""Engines that compute nothing worth having, and reports of them."""

from __future__ import annotations

import dataclasses

import numpy as np
from fake_engines import FakeEngine

from evodeploy.benchmark.judge import Verdict
from evodeploy.benchmark.measure.clocks import Clocks
from evodeploy.benchmark.measure.interleaved import Budget, RunTimes
from evodeploy.benchmark.report.report import Report
from evodeploy.benchmark.row import Row
from evodeploy.benchmark.row_spec import Kept, RowSpec
from evodeploy.benchmark.stages import EndToEnd
from evodeploy.benchmark.subject import Subject
from evodeploy.benchmark.timed_rows import timed_rows
from evodeploy.engines.tensorrt.sidecar import PlanRecord, Profile, write_sidecar
from evodeploy.errors import UnavailableError
from evodeploy.files import sha256
from evodeploy.machine.environment import environment
from evodeploy.machine.nvml import Gpu
from evodeploy.onnx_files import info_of, read_onnx
from evodeploy.specs import ModelInfo, TensorSpec

INFO = ModelInfo("fake", image_size=8, patch_size=4, num_classes=3, selection="stage", keep_ratios=(0.5,))
QUICK = Budget(seconds=0, rounds=6, min_seconds=0, warmup_seconds=0)
SUBJECT = Subject("fake", INFO, None, "no network", (), (), ("assumed",))

RECORD = PlanRecord(
    runtime="tensorrt", runtime_version="10.13.0.35", targets=(), precision="fp16", profiles=(Profile(),),
    inputs=(TensorSpec("images", "float32", (None, 3, 64, 64)),),
    outputs=(TensorSpec("logits", "float32", (None, 10)),),
    model=None, source="x.onnx", source_sha256="", plan_sha256="0" * 64, plan_bytes=1,
)  # fmt: skip


def fake(name, role="evo", precision="fp32", flops=None, **options):
    return RowSpec(name, role, precision, "", lambda: FakeEngine(INFO, **options), flops=flops)


def missing(name):
    def refuse():
        raise UnavailableError("no GPU here")

    return RowSpec(name, "evo", "fp16", "", refuse)


def raced(specs, batches=(4,)):
    return timed_rows(specs, batches, QUICK)


def row(name, milliseconds, batch=1, role="evo", precision="fp32", ratio=None):
    """A row timed in a way that is known in advance; with a `ratio` of an artefact that is elastic in two stages."""
    samples = tuple(float(value) / 1e3 for value in np.broadcast_to(milliseconds, 6))
    keep = None if ratio is None else Kept((ratio, ratio), (int(ratio * 64),) * 2)
    spec = RowSpec(name, role, precision, "", refuse_to_open, keep=keep)
    return Row(spec, batch, batch, precision, "cpu", timing=RunTimes(samples, (1.0,)), stopped="precise")


def refuse_to_open():
    raise AssertionError("nothing opens this one")


def report(rows, peaks=None):
    return Report(SUBJECT, environment(1), QUICK, tuple(rows), peaks or {})


def rare_report():
    """A GPU and its clocks, pictures timed from their files, a row that was compared and one without an engine."""
    clocks = Clocks(1.0, 1, 1.0, 1, (("power_cap", 1.0),))
    timed = dataclasses.replace(row("torch", 4), clocks=clocks, verdict=Verdict(1, 0.0, 0.0, 0.1, 0.0, 1.0))
    absent = Row(missing("tensorrt"), 1, 1, "fp16", "cpu", reason="no GPU here")
    gpus = (Gpu("H200", "1", 1, 1, 1, 1.0),)
    machine = dataclasses.replace(environment(1), gpus=gpus)
    return dataclasses.replace(report([timed, absent]), environment=machine, end_to_end=(EndToEnd("torch", 1, {}),))


def planned(onnx, path, **changes):
    """An engine as far as a bench reads it before it opens it: its record."""
    path.write_bytes(b"x")
    info = info_of(read_onnx(onnx))
    facts = {"model": info, "inputs": info.inputs, "source_sha256": sha256(onnx)}
    write_sidecar(dataclasses.replace(RECORD, **facts | changes), path)
    return path
