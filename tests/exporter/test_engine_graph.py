"""The engines of TensorRT for RTX for the exported graphs, with pinned figures: kernels, fused attentions, memory.

The figures are for SM89, FP16, batch 1 to 64, with the version below. Another version may fuse differently, so they are
only compared with that version. With a plain export, Evo-DeiT-S has 210 kernels and 200 MB, and Evo-LeViT-128S 198
kernels, both with hardly any fused attention.

The remaining kernels of Evo-DeiT-S: 8 in each of 12 blocks (4 products, the attention, the layout of q, k and v, 2
norms), the cast of the images and the patch embedding, 3 for the first scores and their order, 4 for the second, and 4
for the sum of tokens and the head.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from cases import SMALL

from evodeploy.builder.engine import build_engine
from evodeploy.builder.request import BuildRequest
from evodeploy.engines.tensorrt.flavour import load_flavour
from evodeploy.exporter.to_onnx import onnx_from_model
from evodeploy.inspection.program import read_program
from evodeploy.models.random_weights import random_model
from evodeploy.models.zoo import ZOO
from evodeploy.onnx_files import write_onnx

VERSION = "1.7.1.116"


@dataclass(frozen=True)
class Budget:
    """Upper limits; only the number of attentions is exact."""

    nodes: int
    kernels: int
    gemms: int
    attentions: int
    activation_mb: float


TEST = SMALL.name
BUDGETS = {
    (TEST, 20): Budget(189, 60, 25, 6, 12.3),
    ("evo_deit_tiny_patch16_224", 20): Budget(328, 109, 49, 12, 60),
    ("evo_deit_small_patch16_224", 20): Budget(328, 109, 49, 12, 88),
    ("evo_deit_small_patch16_224", 23): Budget(292, 121, 49, 12, 89),
    ("EvoLeViT_128S", 20): Budget(368, 118, 47, 11, 78),
    ("EvoLeViT_128S", 23): Budget(335, 118, 47, 11, 78),
    ("EvoLeViT_256", 20): Budget(473, 151, 59, 14, 132),
}
QUICK = {(TEST, 20), ("EvoLeViT_128S", 20), ("evo_deit_small_patch16_224", 20)}
CASES = [pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow) for case in BUDGETS]
FORBIDDEN = {
    "ScatterND", "NonZero", "Loop", "If", "Scan", "Shape", "Where", "Einsum",
    "SequenceAt", "SequenceConstruct", "SplitToSequence", "ConcatFromSequence",
}  # fmt: skip


def exported(name, opset):
    return onnx_from_model(random_model(SMALL if name == TEST else ZOO[name]), opset=opset)


@pytest.mark.parametrize(("name", "opset"), CASES)
def test_the_engine_stays_within_its_budget(name, opset, tmp_path):
    assert load_flavour("tensorrt-rtx").version == VERSION, "count again with this version, then pin it"
    budget, proto = BUDGETS[name, opset], exported(name, opset)
    operators = {node.op_type for node in proto.graph.node}
    assert operators & FORBIDDEN == set()
    assert not any(
        a.name == "reduction" for n in proto.graph.node if "Scatter" in n.op_type for a in n.attribute if a.s != b"none"
    )
    dynamic = {size.dim_param for value in proto.graph.value_info for size in value.type.tensor_type.shape.dim}
    assert dynamic - {""} == {"batch"}
    assert len(proto.graph.node) <= budget.nodes
    write_onnx(proto, tmp_path / "m.onnx")
    request = BuildRequest(
        tmp_path / "m.onnx", tmp_path / "m.engine", "fp16", ((1, 32, 64),), "tensorrt-rtx", ("sm89",)
    )
    record = build_engine(request)
    program = read_program(request.output)
    assert program.attentions == record.attentions == budget.attentions
    assert program.kernels["gemm"] <= budget.gemms
    assert program.total <= budget.kernels
    assert record.activation_bytes <= budget.activation_mb * 1e6


@pytest.mark.slow
@pytest.mark.parametrize("opset", [20, 23])
@pytest.mark.parametrize("name", ["evo_deit_tiny_patch16_224", "EvoLeViT_128S"])
def test_every_opset_builds_in_fp32(name, opset, tmp_path):
    write_onnx(exported(name, opset), tmp_path / "m.onnx")
    request = BuildRequest(
        tmp_path / "m.onnx", tmp_path / "m.engine", "fp32", ((1, 32, 64),), "tensorrt-rtx", ("sm89",)
    )
    assert build_engine(request).precision == "fp32"
    assert read_program(request.output).total > 0
