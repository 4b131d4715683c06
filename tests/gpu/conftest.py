"""The sample, its engines, and the facts that the tests on a GPU find out."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from gpu.facts import of_this_process

from evodeploy.errors import UnavailableError, UsageError
from evodeploy.machine.driver import driver_problem

SAMPLE = Path(__file__).parents[2] / "sample"
LARGEST = 16
FOUND = pytest.StashKey[dict[str, object]]()
FACTS = of_this_process()


@pytest.fixture
def found(request):
    """A dictionary for what this test measures."""
    return request.node.stash.setdefault(FOUND, {})


@pytest.fixture
def facts():
    """The facts of this part, for whole benches."""
    return FACTS


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.when == "call" or (report.when == "setup" and not report.passed) or report.failed:
        outcome = "not run" if report.skipped else report.outcome
        reason = report.longrepr[2] if report.skipped else str(report.longrepr)[-2000:] if report.failed else ""
        FACTS.record(item.name, outcome, reason, report.duration, item.stash.get(FOUND, {}))
    return report


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Where exports and engines lie: one for all parts of a run, so that the first part alone builds."""
    named = os.environ.get("EVODEPLOY_GPU_WORK")
    return Path(named) if named else tmp_path_factory.mktemp("gpu")


@pytest.fixture(scope="session")
def exported(folder):
    """The checkpoint and its ONNX."""
    from evodeploy.exporter.pipeline import export

    assert driver_problem() is None
    onnx = folder / "digits.onnx"
    if not onnx.exists():
        checkpoint = Path(shutil.copy(SAMPLE / "digits.pth", folder))
        export(checkpoint, onnx, tokens=True)
    return folder / "digits.pth", onnx


def building_problem(runtime, precision):
    """Why no such engine can be built here; empty where one can."""
    from evodeploy.engines.tensorrt.flavour import load_flavour

    try:
        load_flavour(runtime).resolve_targets((), precision)
    except (UnavailableError, UsageError) as error:
        return str(error)
    return ""


@pytest.fixture(scope="session", params=["tensorrt", "tensorrt-rtx"])
def runtime(request):
    return request.param


@pytest.fixture(scope="session")
def elastic(exported, runtime):
    """The sample's elastic ONNX and its engine in FP32 without TF32, which selects as the ONNX does."""
    problem = building_problem(runtime, "fp32")
    if problem:
        pytest.skip(problem)
    return built_elastic(exported[0], runtime)


def built_elastic(checkpoint, runtime):
    """The elastic ONNX of `checkpoint` and its engine, made where they are missing.

    They lie in a folder of their own: the bench takes the engines that lie next to the checkpoint, which are static.
    """
    from evodeploy.builder.pipeline import build
    from evodeploy.exporter.pipeline import export

    folder = checkpoint.parent / "elastic"
    folder.mkdir(exist_ok=True)
    onnx, plan = folder / "elastic.onnx", folder / f"{runtime}.engine"
    if not onnx.exists():
        export(checkpoint, onnx, elastic=(0.1, 1.0))
    if not plan.exists():
        build(onnx, plan, runtime=runtime, tf32=False, opt_batch=8, max_batch=LARGEST)
    return onnx, plan


@pytest.fixture(scope="session", params=["fp16", "fp32"])
def plan(request, exported, runtime):
    """An engine of the sample; FP32 is FP32, without TF32, so that it is verified as closely as the ONNX."""
    from evodeploy.builder.engine import build_engine
    from evodeploy.builder.options import BuilderOptions
    from evodeploy.builder.request import BuildRequest

    problem = building_problem(runtime, request.param)
    if problem:
        pytest.skip(problem)
    path = exported[1].with_name(f"{runtime}-{request.param}.engine")
    if not path.exists():
        precision = None if request.param == "fp32" else request.param
        options = BuilderOptions(tf32=False if precision is None else None)
        batches = ((1, 8, LARGEST),)
        asked = BuildRequest(exported[1], path, precision, batches, runtime, options=options)
        build_engine(asked)
    return path
