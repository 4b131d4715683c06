"""Exported graphs that merge fast tokens: parity in each runtime, precisions, and kernels of TensorRT for RTX."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from cases import SMALL

from evodeploy.builder.engine import build_engine
from evodeploy.builder.request import BuildRequest
from evodeploy.compare.agreement import agreement
from evodeploy.compare.export import clear_pictures, verify_export
from evodeploy.compare.tolerance import TOLERANCES
from evodeploy.engines.onnxruntime_engine import OnnxRuntimeEngine
from evodeploy.engines.openvino_engine import OpenVinoEngine
from evodeploy.exporter.to_onnx import onnx_from_model
from evodeploy.graph.precision import reduced_from_onnx
from evodeploy.graph.quantization import quantized_from_onnx
from evodeploy.graph.ranges import check_fp16_range
from evodeploy.inspection.program import read_program
from evodeploy.models.loaded import reconfigured, with_elastic
from evodeploy.models.random_weights import random_model
from evodeploy.models.zoo import ZOO, with_selection
from evodeploy.onnx_files import info_of, read_onnx, write_onnx
from evodeploy.preprocess import as_input


@pytest.fixture(scope="module")
def merging(small):
    return reconfigured(small, with_selection(SMALL, fast_path="merge"))


@pytest.fixture(scope="module")
def file(merging, tmp_path_factory):
    path = tmp_path_factory.mktemp("merging") / "m.onnx"
    write_onnx(onnx_from_model(merging, tokens=True), path)
    return path


def test_the_export_agrees_with_pytorch_and_outputs_the_owners(merging, file):
    checks = list(verify_export(merging, file))
    assert all(check.passed for check in checks), checks
    others = [f"{what}_{i}" for what in ("selected", "scores", "owner", "owner_margin") for i in (0, 1)]
    assert [check.output for check in checks] == ["logits", *others] * 3
    assert info_of(read_onnx(file)).fast_path == "merge"


def test_the_export_agrees_with_the_attention_operator_too(merging, tmp_path):
    write_onnx(onnx_from_model(merging, opset=23), tmp_path / "m.onnx")
    checks = list(verify_export(merging, tmp_path / "m.onnx"))
    assert checks and all(check.passed for check in checks), checks


def test_openvino_agrees(merging, file):
    pictures, expected = clear_pictures(merging, 8)
    with OpenVinoEngine(file) as engine:
        got = engine.run(as_input(pictures, merging.info))
    assert agreement(expected.outputs, got, TOLERANCES["fp32"], 8).passed


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_the_owner_of_a_token_is_decided_in_fp32(file, precision):
    reduced = reduced_from_onnx(read_onnx(file), precision)
    graph = onnx.shape_inference.infer_shapes(reduced.model, strict_mode=True).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
    deciding = [node for node in graph.node if node.op_type == "ArgMax"]
    assert len(deciding) == 2
    for node in deciding:
        assert kinds[node.input[0]] == onnx.TensorProto.FLOAT
        assert reduced.kept[node.name] == "ArgMax decides a selection"


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_lower_precisions_agree_except_for_near_ties(merging, file, tmp_path, precision):
    pictures, expected = clear_pictures(merging, 8)
    images = as_input(pictures, merging.info)
    if precision == "fp16":
        proto = reduced_from_onnx(read_onnx(file), "fp16").model
    else:
        proto = quantized_from_onnx(read_onnx(file), images, "int8").model
    write_onnx(proto, tmp_path / "m.onnx")
    with OnnxRuntimeEngine(tmp_path / "m.onnx") as engine:
        verdict = agreement(expected.outputs, engine.run(images), TOLERANCES[precision], 8)
    assert verdict.passed, verdict
    assert [each.name for each in verdict.selections] == ["selected_0", "owner_0", "selected_1", "owner_1"]
    assert verdict.selections[1].agreement > (0.99 if precision == "fp16" else 0.9)


def test_no_boolean_becomes_a_float_by_a_cast(file):
    """OpenVINO computes what follows such a cast in FP32: half of a BF16 network, at a tenth of its speed."""
    graph = read_onnx(file).graph
    booleans = {node.output[0] for node in graph.node if node.op_type in ("Equal", "Less", "Greater")}
    casts = [node for node in graph.node if node.op_type == "Cast"]
    assert booleans
    assert not any(node.input[0] in booleans for node in casts)


def test_an_elastic_file_merges_as_many_tokens_as_a_run_asks_for(small, tmp_path):
    model = with_elastic(reconfigured(small, with_selection(SMALL, fast_path="merge")), (0.1, 1.0))
    write_onnx(onnx_from_model(model, tokens=True), tmp_path / "m.onnx")
    images = np.random.default_rng(1).standard_normal((2, 3, 64, 64), dtype=np.float32)
    with OnnxRuntimeEngine(tmp_path / "m.onnx") as engine:
        for keep in ((6, 20), (32, 32), (64, 64)):
            evolved = model.module.evolve(torch.from_numpy(images), keep)
            got = engine.run(images, keep)
            logits = model.module.classify(evolved).numpy()
            np.testing.assert_allclose(got["logits"], logits, rtol=0, atol=1e-4 * np.abs(logits).max())
            for index, owners in enumerate(evolved.owners):
                np.testing.assert_array_equal(got[f"owner_{index}"], owners.numpy())


def test_the_export_of_large_activations_stays_in_the_range_of_fp16(small):
    """All 64 tokens are about 3000 or -3000 and merge into one: their sum exceeds the range, their mean does not."""
    model = reconfigured(small, with_selection(SMALL, (0.02,), fast_path="merge"))
    with torch.no_grad():
        model.module.pos_embed[..., ::2] += 3000
        model.module.pos_embed[..., 1::2] -= 3000
    images = np.random.default_rng(1).standard_normal((1, 3, 64, 64), dtype=np.float32)
    assert 3000 < check_fp16_range(onnx_from_model(model), images).magnitude < 2 * 3000


@pytest.mark.slow
def test_the_engine_fuses_every_attention(tmp_path):
    """Counts are for SM89 as in test_engine_graph.py. With resting tokens there are 109 kernels, 49 for products."""
    model = random_model(with_selection(ZOO["evo_deit_small_patch16_224"], fast_path="merge"))
    write_onnx(onnx_from_model(model), tmp_path / "m.onnx")
    request = BuildRequest(
        tmp_path / "m.onnx", tmp_path / "m.engine", "fp16", ((1, 32, 64),), "tensorrt-rtx", ("sm89",)
    )
    record, program = build_engine(request), read_program(tmp_path / "m.engine")
    assert program.attentions == record.attentions == 12
    assert program.kernels["gemm"] <= 55
    assert program.total <= 131
