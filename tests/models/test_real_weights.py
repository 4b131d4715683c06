"""A trained DINOv2, imported from an ONNX file and compared with that file: `make test-slow` installs it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evodeploy.models.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    import real_weights

    return real_weights.checkpoint(tmp_path_factory.mktemp("real") / "dinov2.pth")


@pytest.fixture(scope="module")
def backbone():
    """The file's own backbone in ONNX Runtime, from images to all normalised tokens."""
    import onnx
    import onnxruntime
    from real_weights import FINAL_NORM, source

    model = onnx.load(source())
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info(FINAL_NORM, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"input_image": images})[0]


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).standard_normal((2, 3, 224, 224), dtype=np.float32)


def test_keeping_every_token_is_the_files_own_backbone(checkpoint, backbone, images):
    model = load_checkpoint(checkpoint, keep_ratios=(1.0,), image_size=224)
    assert (model.config.width, model.config.heads, model.config.depth, model.trained_at) == (384, 6, 12, 518)
    expected = backbone(images)
    assert expected.shape == (2, 257, 384)
    got = model.module(torch.from_numpy(images)).numpy()
    error = np.abs(got - expected[:, 0]).max() / np.abs(expected[:, 0]).max()
    print(f"largest difference {error:.1e} of the largest feature")
    assert error < 2e-5
    before = model.module.evolve(torch.from_numpy(images)).pooled.numpy()
    assert before.shape == (2, 384)


def test_with_selection_the_features_stay_close(checkpoint, backbone, images):
    model = load_checkpoint(checkpoint, keep_ratios=(0.5,), image_size=224)
    got, expected = model.module(torch.from_numpy(images)).numpy(), backbone(images)[:, 0]
    cosine = (got * expected).sum(1) / np.linalg.norm(got, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosine.min() > 0.5
