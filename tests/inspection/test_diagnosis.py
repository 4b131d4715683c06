"""What `evodeploy doctor` finds where a tool is there and broken."""

from __future__ import annotations

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
