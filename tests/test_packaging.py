"""What pyproject.toml promises: interpreters, and extras for each CUDA."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # which pytest brings there

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
FORKED = ("cuda", "gpu", "tensorrt", "tensorrt-lean", "tensorrt-rtx")


def flat(extra):
    """The requirements of `extra`, with those of the extras that it names."""
    for requirement in EXTRAS[extra]:
        named = re.fullmatch(r"evodeploy\[(.+)\]", requirement)
        if named:
            yield from flat(named[1])
        else:
            yield requirement


@pytest.mark.parametrize("extra", FORKED)
def test_every_extra_that_needs_cuda_has_a_form_for_12_and_for_13(extra):
    for cuda in ("12", "13"):
        requirements = list(flat(f"{extra}-cu{cuda}"))
        assert len(requirements) == len(list(flat(extra)))
        for requirement in requirements:
            assert f"-cu{25 - int(cuda)}" not in requirement
            if requirement.startswith("tensorrt"):
                assert requirement.startswith(f"{extra}-cu{cuda}>=")
            if requirement.startswith("cuda-bindings"):
                assert requirement == {"12": "cuda-bindings>=12.6,<13", "13": "cuda-bindings>=13"}[cuda]
            if requirement.startswith("onnxruntime-gpu"):  # 1.27 is the first for CUDA 13
                assert requirement.endswith({"12": ",<1.27", "13": ">=1.27"}[cuda])


def test_what_runs_engines_brings_what_cuda_graphs_need():
    for extra in ("cuda", "tensorrt", "tensorrt-lean"):
        assert {requirement.split(">")[0] for requirement in flat(extra)} >= {"pycuda", "cuda-bindings"}, extra


def test_the_table_of_extras_names_each_of_them():
    table = (ROOT / "docs" / "howto" / "gpu.md").read_text(encoding="utf-8")
    for extra in FORKED:
        assert re.search(rf"^\| .*\| `{extra}-cu12` \| `{extra}-cu13` \|", table, re.MULTILINE), extra


def test_the_interpreters_claimed_are_those_required():
    claimed = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)]
    assert claimed == ["3.10", "3.11", "3.12", "3.13"]
    assert PROJECT["requires-python"] == f">={claimed[0]}"
