from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from cases import SMALL, sharpened
from levit_cases import small as small_levit
from onnx import numpy_helper

from evodeploy.compare.export import clear_pictures, verify_export
from evodeploy.compare.parity import FP32_TOLERANCE, LOOSEST, MULTIPLE, expect
from evodeploy.engines.torch_network import torch_engine
from evodeploy.models.loaded import LoadedModel, with_interface
from evodeploy.models.random_weights import random_model
from evodeploy.models.zoo import ZOO, with_selection
from evodeploy.onnx_files import read_onnx, write_onnx
from evodeploy.preprocess import as_input, random_pictures
from evodeploy.specs import EngineOptions


def test_a_faithful_export_passes_every_check(small, small_onnx):
    checks = list(verify_export(small, small_onnx))
    assert [(check.batch, check.output) for check in checks] == [
        (batch, output)
        for batch in (1, 3, 8)
        for output in ("logits", "selected_0", "selected_1", "scores_0", "scores_1")
    ]
    assert all(check.passed for check in checks)


def test_altered_weights_are_caught_and_located(tmp_path, small, small_onnx):
    proto = read_onnx(small_onnx)
    for tensor in proto.graph.initializer:
        if tensor.name == "network.head.bias":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + 0.01, tensor.name))
    write_onnx(proto, tmp_path / "m.onnx")
    failed = [check for check in verify_export(small, tmp_path / "m.onnx") if not check.passed]
    assert {check.output for check in failed} == {"logits"}
    assert "worst at image" in failed[0].detail


def test_another_selection_is_caught(tmp_path, small, small_onnx):
    proto = read_onnx(small_onnx)
    for node in proto.graph.node:
        if node.op_type == "TopK":
            for attribute in node.attribute:
                if attribute.name == "largest":
                    attribute.i = 0
    onnx.checker.check_model(proto)
    write_onnx(proto, tmp_path / "m.onnx")
    failed = [check for check in verify_export(small, tmp_path / "m.onnx") if not check.passed]
    assert {check.output for check in failed} == {"logits", "selected_0", "selected_1", "scores_1"}


def test_verification_pictures_have_clear_selections():
    pictures, expected = clear_pictures(random_model(SMALL, seed=9), 8)
    assert (pictures.shape, pictures.dtype) == ((8, 64, 64, 3), np.uint8)
    assert all((expected.margins(i) >= 1e-4).all() for i in range(2))
    assert (expected.looseness() == FP32_TOLERANCE).all()


def test_margins_are_those_of_the_scores(small):
    _, expected = clear_pictures(small, 3)
    for i in range(2):
        ordered = -np.sort(-expected.outputs[f"scores_{i}"], axis=1)
        margins = (ordered[:, 31] - ordered[:, 32]) / ((ordered[:, 31] + ordered[:, 32]) / 2)
        np.testing.assert_allclose(expected.margins(i), margins)


def test_bytes_are_judged_in_the_same_way_as_floats(small):
    """Bytes have no neighbours in float32, so the network is judged after the normalisation."""
    pictures, expected = clear_pictures(small, 3)
    same, of_bytes = clear_pictures(with_interface(small, "uint8", None), 3)
    np.testing.assert_array_equal(pictures, same)
    np.testing.assert_array_equal(expected.losses["logits"], of_bytes.losses["logits"])


def test_lower_contrast_is_tried_where_full_contrast_is_badly_conditioned():
    model = random_model(small_levit())
    for name, gains in model.module.named_parameters():
        if name.endswith(("qkv.bn.weight", "query.bn.weight", "kv.bn.weight", "proj.bn.weight", "fc2.bn.weight")):
            gains.data *= 2  # small changes move attention from token to token
    with torch_engine(model, tokens=True, options=EngineOptions(device="cpu")) as reference:
        first = expect(reference, as_input(random_pictures(model.info, 8), model.info))
    assert (first.looseness() > FP32_TOLERANCE).sum() >= 3
    _, expected = clear_pictures(model, 8)
    assert (expected.looseness() <= FP32_TOLERANCE).sum() >= 5
    assert (np.diff(expected.looseness()) >= 0).all()


def test_random_evo_levits_are_well_conditioned_and_attend_unevenly():
    model = random_model(with_selection(ZOO["EvoLeViT_192"], selection="layer"))
    with torch_engine(model, tokens=True, options=EngineOptions(device="cpu")) as reference:
        expected = expect(reference, as_input(random_pictures(model.info, 2), model.info))
    assert max(losses.max() for losses in expected.losses.values()) < FP32_TOLERANCE / MULTIPLE
    for i in range(expected.selections):
        scores = expected.outputs[f"scores_{i}"]
        assert (scores.max(axis=1) > 1.4 * scores.mean(axis=1)).all()
        assert (expected.margins(i) > 1e-4).all()


@pytest.fixture(scope="module")
def networks(small, small_onnx) -> dict[str, tuple[LoadedModel, onnx.ModelProto]]:
    """A well conditioned and a badly conditioned network, each with its graph."""
    proto = read_onnx(small_onnx)
    return {"well": (small, proto), "badly": sharpened(small, proto, gain=2)}


def test_a_badly_conditioned_network_passes_and_the_report_says_so(tmp_path, small, small_onnx):
    model, proto = sharpened(small, read_onnx(small_onnx), gain=3)
    write_onnx(proto, tmp_path / "m.onnx")
    checks = list(verify_export(model, tmp_path / "m.onnx"))
    assert all(check.passed for check in checks), checks
    assert max(check.error for check in checks) > FP32_TOLERANCE  # beyond the limit of a well conditioned network
    assert all(check.limit <= LOOSEST for check in checks)
    assert all("badly conditioned" in check.detail for check in checks if check.output == "scores_1")


def third(proto: onnx.ModelProto, kind: str, fits: Callable[[onnx.NodeProto], bool] = lambda _: True) -> onnx.NodeProto:
    """Return the third node of a `kind`, which is in the third block."""
    return [each for each in proto.graph.node if each.op_type == kind and fits(each)][2]


def set_attribute(node: onnx.NodeProto, name: str, value: object) -> None:
    kept = [each for each in node.attribute if each.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, onnx.helper.make_attribute(name, value)])


def wrong_epsilon(proto: onnx.ModelProto) -> None:
    set_attribute(third(proto, "LayerNormalization"), "epsilon", 1e-3)


def tanh_gelu(proto: onnx.ModelProto) -> None:
    set_attribute(third(proto, "Gelu"), "approximate", "tanh")


def residual(proto: onnx.ModelProto) -> onnx.NodeProto:
    branches = {each.output[0] for each in proto.graph.node if any(".proj.bias" in name for name in each.input)}
    return third(proto, "Add", lambda each: each.input[1] in branches)


def swapped_operator(proto: onnx.ModelProto) -> None:
    residual(proto).op_type = "Sub"


def missing_residual(proto: onnx.ModelProto) -> None:
    add = residual(proto)
    add.op_type = "Identity"
    del add.input[0]


def attention_off_by_one_percent(proto: onnx.ModelProto) -> None:
    products = {each.output[0] for each in proto.graph.node if each.op_type == "MatMul"}
    softmax = third(proto, "Softmax", lambda each: each.input[0] in products)
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(1.01), "scale"))
    scaled = onnx.helper.make_node("Mul", [softmax.input[0], "scale"], ["scaled"])
    proto.graph.node.insert(list(proto.graph.node).index(softmax), scaled)
    softmax.input[0] = "scaled"


FAULTS = [wrong_epsilon, tanh_gelu, swapped_operator, missing_residual, attention_off_by_one_percent]


@pytest.mark.parametrize("conditioned", ["well", "badly"])
@pytest.mark.parametrize("fault", FAULTS, ids=[fault.__name__ for fault in FAULTS])
def test_planted_faults_are_refused(tmp_path, networks, conditioned, fault):
    model, proto = networks[conditioned]
    faulty = onnx.ModelProto()
    faulty.CopyFrom(proto)
    fault(faulty)
    onnx.checker.check_model(faulty)
    write_onnx(faulty, tmp_path / "m.onnx")
    failed = {check.batch for check in verify_export(model, tmp_path / "m.onnx") if not check.passed}
    assert failed == {1, 3, 8}
