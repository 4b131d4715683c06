"""The lines of trtexec, parsed as it would parse them: golden/trtexec.json names all options of two versions."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import shlex
from pathlib import Path

import pytest
from cuda_shim.plans import write_elastic, write_plan

from evodeploy.benchmark import trtexec
from evodeploy.benchmark.measure.interleaved import Budget
from evodeploy.benchmark.trtexec import lines_of_engine, lines_of_onnx
from evodeploy.engines.tensorrt.sidecar import PlanRecord, Profile, read_sidecar, write_sidecar
from evodeploy.onnx_files import read_onnx, write_onnx
from evodeploy.specs import TensorSpec

VERSIONS = json.loads((Path(__file__).parent / "golden/trtexec.json").read_text(encoding="utf-8"))["versions"]
FLAGS = {
    "--exposeDMA", "--includeDataTransfers", "--noCudaGraph", "--noDataTransfers", "--noTF32", "--stronglyTyped",
    "--useCudaGraph", "--useSpinWait", "--versionCompatible",
}  # fmt: skip
RTX = {"--rtxCudaGraphStrategy", "--specializeStrategyDS"}  # NVIDIA's documentation of TensorRT for RTX
BUDGET = Budget(seconds=3)


def parsed(line, version):
    """The options for trtexec of `version`: none that it does not know or that does nothing, each once, with a value
    where it takes one."""
    tool, *words = shlex.split(line.command)
    known = {option for part in VERSIONS[version]["options"] for option in part.split()}
    useless = {option for part in VERSIONS[version]["deprecated"] for option in part.split()}
    options = dict(word.partition("=")[::2] for word in words)
    assert len(options) == len(words)
    allowed = known - useless | (RTX if tool == "tensorrt_rtx" else set())
    assert set(options) <= allowed, set(options) - allowed
    assert all((value == "") == (option in FLAGS) for option, value in options.items()), options
    return tool, options


@pytest.fixture
def engine(tmp_path):
    """A function that writes the record of an engine; nothing else of it is read."""

    def write(version="10.13.0.35", profiles=((1, 8, 16),), batch=None, **changes):
        record = PlanRecord(
            runtime="tensorrt", runtime_version=version, targets=(), precision="fp16",
            profiles=tuple(Profile(*profile) for profile in profiles),
            inputs=(TensorSpec("images", "float32", (batch, 3, 224, 224)),),
            outputs=(TensorSpec("logits", "float32", (batch, 10)),), model=None, source="m.onnx",
            source_sha256="0" * 64, plan_sha256="0" * 64, plan_bytes=1, architecture="sm89",
        )  # fmt: skip
        path = tmp_path / "m.engine"
        path.write_bytes(b"x")
        write_sidecar(dataclasses.replace(record, **changes), path)
        return path

    return write


def test_an_elastic_engine_or_file_is_measured_at_the_ratios_of_a_bench(tmp_path):
    """Without these values trtexec would keep one token in each stage."""
    onnx = write_elastic(tmp_path / "m.onnx")
    kept = ["images:4x3x64x64,keep:32x16"] * 12 + ["images:4x3x64x64,keep:64x64"] * 12
    lines = list(lines_of_engine(write_plan(tmp_path / "m.engine", onnx), [4], BUDGET))
    assert [parsed(line, "10.16")[1]["--shapes"] for line in lines] == kept
    heads = [str(lines[index]).splitlines()[0] for index in (0, 12)]
    assert heads == [
        f"# m.engine, batch 4, transfers included, 1 in flight, keep {ratios}" for ratios in ("0.5/0.25", "1")
    ]
    stated = list(lines_of_engine(tmp_path / "m.engine", [4], BUDGET, [0.75]))  # by a deploy file
    assert {parsed(line, "10.16")[1]["--shapes"].partition(",")[2] for line in stated} == {"keep:48x48", "keep:64x64"}
    lines = list(lines_of_onnx(onnx, [4], BUDGET, tf32=True))
    found = [parsed(line, "10.16" if "--stronglyTyped" in line.command else "11.1")[1] for line in lines]
    assert [options["--shapes"] for options in found] == kept
    for options in found:
        assert options["--minShapes"] == "images:1x3x64x64,keep:6x6"
        assert options["--optShapes"] == "images:4x3x64x64,keep:32x16"
        assert options["--maxShapes"] == "images:4x3x64x64,keep:64x64"


@pytest.mark.parametrize(("version", "golden"), [("10.13.0.35", "10.16"), ("11.1.0.106", "11.1")])
def test_each_row_of_an_engine_has_a_line_that_trtexec_takes(engine, version, golden):
    path = engine(version)
    lines = list(lines_of_engine(path, [1, 8], BUDGET))
    assert len({line.command for line in lines}) == 2 * 2 * 2 * 3
    for line in lines:
        tool, options = parsed(line, golden)
        assert tool == "trtexec"
        assert options["--loadEngine"] == str(path)
        assert options["--shapes"] == f"images:{line.batch}x3x224x224"
        assert (options["--warmUp"], options["--duration"], options["--avgRuns"]) == ("200", "3", "10")


def test_the_defaults_of_each_version_are_minded(engine):
    def words(version, **row):
        lines = list(lines_of_engine(engine(version), [8], BUDGET))
        (line,) = (line for line in lines if all(getattr(line, name) == value for name, value in row.items()))
        words = shlex.split(line.command)
        return {word for word in words if word.partition("=")[0] in FLAGS or word.startswith("--infStreams")}

    alone = {"transfers": "included", "in_flight": 1, "cuda_graph": False}
    assert words("10.9.0.34", **alone) == {"--infStreams=1", "--exposeDMA", "--useSpinWait"}
    assert words("11.0.0.1", **alone) == {"--infStreams=1", "--exposeDMA", "--includeDataTransfers", "--noCudaGraph"}
    two = {**alone, "in_flight": 2}
    assert words("10.9.0.34", **two) == {"--infStreams=1", "--useSpinWait"}
    resident = {"transfers": "resident", "in_flight": 3, "cuda_graph": True}
    assert words("10.9.0.34", **resident) == {
        "--infStreams=3", "--noDataTransfers", "--useCudaGraph", "--useSpinWait"
    }  # fmt: skip
    assert words("11.0.0.1", **resident) == {"--infStreams=3"}


def test_the_profile_is_named_a_fixed_batch_is_not_and_one_that_no_profile_takes_is_said(engine):
    path = engine(profiles=((1, 1, 1), (2, 8, 16)), version_compatible=True)
    *taken, refused = lines_of_engine(path, [1, 8, 64], BUDGET)
    assert [parsed(line, "10.16")[1]["--useProfile"] for line in (taken[0], taken[-1])] == ["0", "1"]
    assert "--versionCompatible" in parsed(taken[0], "10.16")[1]
    assert str(refused).startswith("# m.engine, batch 64") and "takes a batch of 64" in str(refused)
    fixed = next(lines_of_engine(engine(profiles=((8, 8, 8),), batch=8), [8], BUDGET))
    assert "--shapes" not in parsed(fixed, "10.16")[1]


def test_tensorrt_for_rtx_has_a_tool_of_its_own(engine):
    path = engine("1.7.1.116", runtime="tensorrt-rtx")
    for line in lines_of_engine(path, [8], BUDGET):
        tool, options = parsed(line, "10.16")
        assert tool == "tensorrt_rtx"
        assert options["--rtxCudaGraphStrategy"] == ("wholeGraph" if line.cuda_graph else "disable")
        assert options["--specializeStrategyDS"] == "eager"


@pytest.mark.parametrize(("installed", "golden"), [("10.9.0.34", "10.16"), (None, "11.1")])
def test_an_onnx_file_is_built_by_trtexec_in_the_precision_that_it_holds(small_onnx, monkeypatch, installed, golden):
    def version(name):
        if installed is None:
            raise importlib.metadata.PackageNotFoundError
        return installed

    monkeypatch.setattr(trtexec.importlib.metadata, "version", version)
    lines = list(lines_of_onnx(small_onnx, [8, 1], BUDGET, tf32=golden == "11.1"))
    assert [line.batch for line in lines] == [1] * 12 + [8] * 12
    for line in lines:
        _, options = parsed(line, golden)
        assert options["--onnx"] == str(small_onnx)
        assert not {"--fp16", "--bf16", "--int8", "--best"} & set(options)
        assert ("--stronglyTyped" in options) == ("--noTF32" in options) == (golden == "10.16")
        sizes = [options[f"--{which}Shapes"].split(":")[1].split("x")[0] for which in ("min", "opt", "max")]
        assert sizes == (["1", "1", "1"] if line.batch == 1 else ["2", "8", "8"])


def test_a_batch_that_an_onnx_file_does_not_have_has_a_reason_and_no_line(small_onnx, tmp_path):
    model = read_onnx(small_onnx)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    write_onnx(model, tmp_path / "m.onnx")
    refused, *taken = lines_of_onnx(tmp_path / "m.onnx", [1, 4], BUDGET, tf32=True)
    assert str(refused).startswith("# m.onnx, batch 1, ") and "the file has a fixed batch of 4: " in str(refused)
    assert [line.batch for line in taken] == [4] * 12
    assert not any("Shapes" in line.command for line in taken)


def test_the_command_prints_and_runs_nothing(engine, cli):
    path = engine()
    assert read_sidecar(path).precision == "fp16"
    code, out, _ = cli("bench", path, "--print-trtexec", "--batch", "8", "--seconds", "3")
    lines = out.splitlines()
    assert (code, len(lines)) == (0, 24)
    assert lines[0] == "# m.engine, batch 8, transfers included, 1 in flight"
    assert lines[1] == (
        f"trtexec --loadEngine={path} --shapes=images:8x3x224x224 --infStreams=1 --exposeDMA --useSpinWait "
        "--warmUp=200 --duration=3 --avgRuns=10"
    )
    code, out, _ = cli("bench", path, "--print-trtexec", "--batch", "8", "--seconds", "3", "--json")
    assert [row["command"] for row in json.loads(out)] == lines[1::2]


def test_the_command_says_whose_tool_it_is_and_what_it_needs(engine, cli, small_checkpoint):
    code, _, err = cli("bench", engine("1.7.1.116", runtime="tensorrt-rtx"), "--print-trtexec")
    assert (code, "tensorrt_rtx" in err) == (0, True)
    code, _, err = cli("bench", engine(), "--print-trtexec", "--rounds", "7")
    assert (code, "--rounds has no meaning with --print-trtexec" in err) == (2, True)
    code, _, err = cli("bench", small_checkpoint, "--print-trtexec")
    assert (code, "engines or ONNX files" in err) == (2, True)
