"""An exported ONNX file against the network it was made from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from evodeploy.engines.base import Array
from evodeploy.engines.onnxruntime_engine import OnnxRuntimeEngine
from evodeploy.export.deployed import torch_engine
from evodeploy.models.checkpoint import LoadedModel
from evodeploy.parity import Check, compare
from evodeploy.specs import EngineOptions

BATCHES = (1, 3, 8)  # none of them the one that was traced
CLEAR_MARGIN = 1e-4  # a hundred times what float32 rounding moves a score


def verify_export(model: LoadedModel, path: Path, seed: int = 0) -> Iterator[Check]:
    """Run `path` in ONNX Runtime and `model` in PyTorch on random images; yields one check per output and batch.

    The images are drawn so that every selection is clear: where the K-th and the next score nearly tie, rounding alone
    could decide, and a difference would say nothing.
    """
    with OnnxRuntimeEngine(path, EngineOptions(device="cpu")) as candidate:
        tokens = any(spec.name.startswith("selected_") for spec in candidate.outputs)
        # On the CPU both: float32 on a GPU may mean TF32.
        with torch_engine(model, tokens=tokens, options=EngineOptions(device="cpu")) as reference:
            batches = BATCHES if candidate.batch.max is None else (candidate.batch.max,)
            images = clear_images(model, max(batches), seed)
            for batch in batches:
                yield from compare(reference, candidate, images[:batch])


def clear_images(model: LoadedModel, count: int, seed: int = 0, tries: int = 16) -> Array:
    """`count` random images (count, 3, H, W), those first whose selections are decided by clear margins."""
    side = model.config.image_size
    generator = np.random.Generator(np.random.PCG64(seed))
    images: Array = np.empty((0, 3, side, side), np.float32)
    margins: Array = np.empty(0, np.float32)
    for _ in range(tries):
        drawn = generator.standard_normal((count, 3, side, side), dtype=np.float32)
        images = np.concatenate([images, drawn])
        margins = np.concatenate([margins, selection_margins(model, torch.from_numpy(drawn)).numpy()])
        best = np.argsort(margins < CLEAR_MARGIN, kind="stable")[:count]
        images, margins = images[best], margins[best]
        if margins.min() >= CLEAR_MARGIN:
            break
    return images


def selection_margins(model: LoadedModel, images: Tensor) -> Tensor:
    """How far apart the last kept and the first dropped score lie, relative to the former, at the closest selection.

    (B,) for `images` (B, 3, H, W); infinite where nothing is selected.
    """
    with torch.inference_mode():
        evolved = model.module.evolve(images)
    margin = torch.full((len(images),), torch.inf)
    for positions, scores in zip(evolved.selected, evolved.scores, strict=True):
        kept = positions.shape[1]
        ordered = scores.sort(dim=1, descending=True).values
        margin = margin.minimum((ordered[:, kept - 1] - ordered[:, kept]) / ordered[:, kept - 1].abs())
    return margin
