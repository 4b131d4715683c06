from __future__ import annotations

import numpy as np
import onnx
import torch
from cases import SMALL
from onnx import numpy_helper

from evodeploy.export.verify import CLEAR_MARGIN, clear_pictures, selection_margins, verify_export
from evodeploy.models.checkpoint import random_model
from evodeploy.onnx_files import read_onnx, write_onnx
from evodeploy.preprocess import as_input


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


def test_margins_are_those_of_the_scores(small, small_images):
    images = torch.from_numpy(small_images)
    scores = [s.numpy() for s in small.module.evolve(images).scores]
    expected = np.full(len(images), np.inf)
    for each in scores:
        ordered = -np.sort(-each, axis=1)
        expected = np.minimum(expected, (ordered[:, 31] - ordered[:, 32]) / ordered[:, 31])
    np.testing.assert_allclose(selection_margins(small, images).numpy(), expected, rtol=1e-4)


def test_verification_images_have_clear_selections():
    model = random_model(SMALL, seed=9)
    pictures = clear_pictures(model, 8)
    assert (pictures.shape, pictures.dtype) == ((8, 64, 64, 3), np.uint8)
    images = torch.from_numpy(as_input(pictures, model.info))
    assert selection_margins(model, images).min() >= CLEAR_MARGIN
