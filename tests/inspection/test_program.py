from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from graphs import value, write_graph
from onnx import helper

from evodeploy.builder.engine import build_engine
from evodeploy.builder.request import BuildRequest
from evodeploy.inspection.program import GpuProgram, read_program


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    """An engine for two architectures: two matrix products that cannot be one, and a softmax between them."""
    path = tmp_path_factory.mktemp("program") / "m.onnx"
    weights = np.random.default_rng(0).standard_normal((2, 256, 256)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["images", "w0"], ["a"]),
        helper.make_node("Softmax", ["a"], ["b"], axis=-1),
        helper.make_node("MatMul", ["b", "w1"], ["logits"]),
    ]
    images, logits = (value(name, ["batch", 256]) for name in ("images", "logits"))
    write_graph(path, nodes, [images], [logits], {f"w{i}": w for i, w in enumerate(weights)})
    request = BuildRequest(path, path.with_suffix(".engine"), "fp16", ((1, 4, 8),), "tensorrt-rtx", ("sm86", "sm89"))
    build_engine(request)
    return request.output


def test_a_plan_shows_its_kernels(plan):
    program = read_program(plan)
    assert program.kernels["gemm"] == 2
    assert program.attentions == 0
    assert 3 <= program.total <= 5


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 4096, b"\nmain {\n label bb1: \n}\n", b"\n  accelerators={sm89 }\nmain {\n"]
)
def test_another_format_is_no_program(tmp_path, data):
    (tmp_path / "x.engine").write_bytes(data)
    assert read_program(tmp_path / "x.engine") is None


def test_a_file_that_is_missing_is_no_program(tmp_path):
    assert read_program(tmp_path / "none.engine") is None


def test_half_a_plan_is_read_as_far_as_it_goes(plan, tmp_path):
    data, half = plan.read_bytes(), tmp_path / "half.engine"
    for share in (0.1, 0.5, 0.9):
        half.write_bytes(data[: int(share * len(data))])
        program = read_program(half)
        assert program is None or program.total <= read_program(plan).total


TEXT = """
  accelerators={sm89 }
main {
 label bb7: 
  shape_call={ name="s" stream=0 }
  function={ name=__myl_CastAdd fqn=x layers="a" }
  runtime_fusion={ name=__myl_FcAdd input_args={ "x" } layers="b" backbone=gemm }
  runtime_fusion={ name=__myl_CorrMul input_args={ "x" } layers="c" backbone=conv }
  function={ name=_gemm_mha_v2 fqn=x }
  fully_connected={ name="node_MatMul" output={"y" } }
  corrltn={ name="node_conv" }
  pooling={ name="something_new" }
  signal={ name="e" }
 label bb9: 
  memset={ name="on_the_host" }
}
  accelerators={*}
main {
 label bb1:
  fully_connected={ name="a fallback" }
}
"""  # noqa: W291


def test_every_kind_of_record_is_counted_once(tmp_path):
    (tmp_path / "x.engine").write_bytes(b"\0binary\xff" + TEXT.encode() + b"\xff")
    program = read_program(tmp_path / "x.engine")
    assert program == GpuProgram({"gemm": 2, "convolution": 2, "fused": 1, "attention": 1, "other": 1})
    assert program.total == 7


def test_inspect_shows_the_program(plan, small_onnx, tmp_path, cli):
    code, out, _ = cli("inspect", plan)
    assert code == 0
    assert "gemm: 2" in out and "attention fused  0" in out
    small = tmp_path / "small.engine"
    build_engine(BuildRequest(small_onnx, small, "fp16", ((1, 4, 8),), "tensorrt-rtx", ("sm89",)))
    code, out, _ = cli("inspect", small, "--json")
    facts = json.loads(out)
    assert facts["attention_fused"] == "6 of 6"
    assert facts["kernels"]["total"] == sum(n for kind, n in facts["kernels"].items() if kind != "total")


def test_inspect_of_a_plan_of_another_format_leaves_the_program_out(plan, tmp_path, cli):
    other = tmp_path / "other.engine"
    other.write_bytes(b"a plan of a TensorRT that says nothing")
    other.with_name("other.engine.json").write_bytes(plan.with_name(plan.name + ".json").read_bytes())
    code, out, _ = cli("inspect", other, "--json")
    assert code == 0 and "kernels" not in json.loads(out)


@pytest.mark.parametrize(
    "unit", ["\\n  accelerators={", "\\nmain {\\n label ", "\\nmain {\\n label x\\n", "\\nmain {\\n label " + "x" * 400]
)
def test_the_worst_plan_is_read_in_linear_time(unit):
    """In quadratic time each of these takes minutes; the limit leaves a slow machine its time."""
    names = "from evodeploy.inspection.program import counted, texts_of"
    code = f"{names}; print([counted(texts) for texts in texts_of(b'{unit}' * 100_000)])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True)
    assert run.stdout in ("[]\n", "[None]\n")
