"""Comparing an exported ONNX file with the network that it was made from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evodeploy.compare.keeps import elastic_keeps
from evodeploy.compare.parity import FP32_TOLERANCE, Check, Expected, compare, expect, joined
from evodeploy.engines.base import Engine
from evodeploy.engines.onnxruntime_engine import OnnxRuntimeEngine
from evodeploy.engines.torch_network import torch_engine
from evodeploy.models.loaded import LoadedModel, reconfigured
from evodeploy.models.zoo import with_selection
from evodeploy.preprocess import as_input, random_pictures
from evodeploy.specs import EngineOptions

BATCHES = (1, 3, 8)  # none of them is the traced batch
TRIES = 4  # each at half the contrast of the previous one


def verify_export(model: LoadedModel, path: Path) -> Iterator[Check]:
    """Run `path` in ONNX Runtime and `model` in PyTorch on random images; yield one check per output and batch.

    An elastic model is compared at its own keep ratios, then at each of the `elastic_keeps` with a static network.
    """
    with OnnxRuntimeEngine(path, EngineOptions(device="cpu")) as candidate:
        batches = BATCHES if candidate.batch.max is None else (candidate.batch.max,)
        pictures, expected = clear_pictures(model, max(batches))
        images = as_input(pictures, model.info)
        for batch in batches:
            yield from compare(expected[:batch], candidate, images[:batch])
        for keep in elastic_keeps(model.info):
            for check in _compared_at(model, candidate, keep, max(batches)):
                yield dataclasses.replace(check, detail=f"{check.detail}; {_kept(keep)} tokens kept")


def configured(model: LoadedModel, keep: tuple[int, ...]) -> LoadedModel:
    """Return the network of an elastic `model` as a static one that always keeps `keep` tokens."""
    stages = zip(keep, model.info.elastic, strict=True)
    # Half a token more, so that rounding down gives the same number.
    ratios = tuple(1.0 if kept == stage.tokens else (kept + 0.5) / stage.tokens for kept, stage in stages)
    return reconfigured(model, with_selection(model.config, ratios))


def _compared_at(model: LoadedModel, candidate: Engine, keep: tuple[int, ...], count: int) -> Iterator[Check]:
    pictures, expected = clear_pictures(configured(model, keep), count)
    yield from compare(expected, candidate, as_input(pictures, model.info), keep, common=True)


def _kept(keep: tuple[int, ...]) -> str:
    return "/".join(map(str, keep))


def clear_pictures(model: LoadedModel, count: int) -> tuple[NDArray[np.uint8], Expected]:
    """Draw `count` random images (count, H, W, 3) to compare engines on, and run `model` on them in float64.

    Images with clear selection margins and small float32 errors are preferred. If full contrast gives too few of them,
    lower contrast is tried, which saturates fewer activations.
    """
    ranks, classes = model.info.top_k, model.info.num_classes
    spare = int(ranks is not None and ranks < classes)  # judging the last rank needs the next one
    info = dataclasses.replace(model.info, input_format="float32", top_k=ranks and ranks + spare)
    # On the CPU: float32 on a GPU may mean TF32.
    options = EngineOptions(device="cpu")
    with torch_engine(dataclasses.replace(model, info=info), tokens=True, options=options) as reference:
        pictures = random_pictures(info, count)
        expected = expect(reference, as_input(pictures, info), spare)
        for attempt in range(1, TRIES):
            missing = int((expected.looseness() > FP32_TOLERANCE).sum())
            if not missing:
                break
            drawn = random_pictures(info, missing, attempt)
            drawn = drawn // 2**attempt + np.uint8(128 - 128 // 2**attempt)
            pictures = np.concatenate([pictures, drawn])
            expected = joined([expected, expect(reference, as_input(drawn, info), spare)])
            best = np.argsort(expected.looseness(), kind="stable")[:count]
            pictures, expected = pictures[best], expected[best]
    return pictures, expected
