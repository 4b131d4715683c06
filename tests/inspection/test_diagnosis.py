"""What `evodeploy doctor` finds where a tool is there and broken."""

from __future__ import annotations

import sys

from evodeploy.engines import device
from evodeploy.inspection import diagnosis


def test_a_tool_that_fails_in_its_own_way_costs_no_other_finding(monkeypatch):
    def broken():
        raise OSError("libcudart.so.13: cannot open shared object file\nno such file")

    monkeypatch.setattr(diagnosis, "_torch", broken)
    found = {each["name"]: each for each in diagnosis.diagnose()}
    assert found["torch"] == {
        "name": "torch", "works": False, "detail": "libcudart.so.13: cannot open shared object file",
    }  # fmt: skip
    assert found["processor"]["works"] and found["onnx"]["works"]


def test_on_a_gpu_the_build_of_onnxruntime_for_it_is_named(monkeypatch):
    """The one for the CPU excludes it."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for problem, extra in ((None, "gpu"), ("no GPU", "cpu")):
        monkeypatch.setattr(device, "driver_problem", lambda problem=problem: problem)
        found = {each["name"]: each for each in diagnosis.diagnose()}
        assert found["onnxruntime"]["detail"].endswith(f'pip install "evodeploy[{extra}]"')
