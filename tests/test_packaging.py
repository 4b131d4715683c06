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


def test_the_page_of_installation_lists_every_extra():
    page = (ROOT / "docs" / "howto" / "install.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE))
    assert {extra for extra in EXTRAS if not extra.endswith(("-cu12", "-cu13"))} - {"test", "dev", "docs"} == listed


def names(extras):
    """The distributions that extras bring, without versions, endings for a CUDA and markers."""
    found = (requirement for extra in extras.split(",") for requirement in flat(extra))
    return {re.sub(r"-cu1[23]$", "", re.split(r"[\[<>=; ]", requirement)[0]) for requirement in found}


def installations():
    """Every set of extras that a page names, with the commands that follow its installation in the same section."""
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        for section in re.split(r"^#+ ", page.read_text(encoding="utf-8"), flags=re.MULTILINE):
            parts = re.split(r"(?:evodeploy|pip install \"\.)\[([a-z0-9,-]+)\]", section)
            for extras, after in zip(parts[1::2], parts[2::2], strict=True):
                yield page.name, extras, re.findall(r"^ {4}(?:\$ )?evodeploy ([\w-]+ .*)$", after, re.MULTILINE)


INSTALLATIONS = list(installations())
NEEDED = [  # what a command line that matches needs
    (r"export ", {"torch", "onnx", "onnxscript"}),
    (r"(export|verify|bench|build-engine .*--images) ", {"onnxruntime"}),
    (r"build-engine ", {"onnx", "tensorrt"}),
    (r"(verify|bench) .*\.pth", {"torch"}),
    (r"(verify|bench) .*\.engine", {"tensorrt", "pycuda", "cuda-bindings"}),
]


@pytest.mark.parametrize(("page", "extras", "commands"), INSTALLATIONS, ids=[f"{p}-{e}" for p, e, _ in INSTALLATIONS])
def test_commands_work_after_the_installation_before_them(page, extras, commands):
    brought = names(extras)
    assert not {"onnxruntime", "onnxruntime-gpu"} <= brought, "each overwrites the other's files"
    assert not ("torch" in brought and "-cu12" in extras), "PyPI's PyTorch needs cuda-bindings 13"
    alike = {"onnxruntime-gpu": "onnxruntime", "tensorrt-rtx": "tensorrt"}
    brought |= {same for name, same in alike.items() if name in brought}
    for command in commands:
        for pattern, needed in NEEDED:
            if re.match(pattern, command):
                assert needed <= brought, f"{page}: `{command}` after {extras}"


def test_the_pages_install_from_the_clone():
    """evodeploy is not on PyPI: its name alone installs nothing, or what another gave that name."""
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        commands = re.findall(r"^(?: {4}|RUN )(.*pip install .*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert not [each for each in commands if re.search(r"install \"?evodeploy", each)], page.name


def test_nox_resolves_what_the_pages_install():
    listed = re.findall(r'^    "([a-z0-9,-]+)",$', (ROOT / "noxfile.py").read_text(encoding="utf-8"), re.MULTILINE)
    asked = {extras for _, extras, _ in INSTALLATIONS}
    assert asked
    assert asked - set(listed) - set(EXTRAS) == set()  # extras alone too where they have versions of their own


def test_the_interpreters_claimed_are_those_required():
    claimed = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)]
    assert claimed == ["3.10", "3.11", "3.12", "3.13"]
    assert PROJECT["requires-python"] == f">={claimed[0]}"
