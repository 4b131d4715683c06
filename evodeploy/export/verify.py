"""An exported ONNX file against the network it was made from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evodeploy.engines.base import Array
from evodeploy.engines.onnxruntime_engine import OnnxRuntimeEngine
from evodeploy.export.deployed import torch_engine
from evodeploy.models.checkpoint import LoadedModel
from evodeploy.parity import Check, compare
from evodeploy.preprocess import as_input, normalised, random_pictures
from evodeploy.specs import EngineOptions

BATCHES = (1, 3, 8)  # none of them the one that was traced
CLEAR_MARGIN = 1e-4  # a hundred times what float32 rounding moves a score


def verify_export(model: LoadedModel, path: Path, seed: int = 0) -> Iterator[Check]:
    """Run `path` in ONNX Runtime and `model` in PyTorch on random pictures; yields one check per output and batch.

    They are drawn so that every selection is clear: where the K-th and the next score nearly tie, rounding alone could
    decide, and a difference would say nothing.
    """
    with OnnxRuntimeEngine(path, EngineOptions(device="cpu")) as candidate:
        tokens = any(spec.name.startswith("selected_") for spec in candidate.outputs)
        # On the CPU both: float32 on a GPU may mean TF32.
        with torch_engine(model, tokens=tokens, options=EngineOptions(device="cpu")) as reference:
            batches = BATCHES if candidate.batch.max is None else (candidate.batch.max,)
            images = as_input(clear_pictures(model, max(batches), seed), model.info)
            for batch in batches:
                yield from compare(reference, candidate, images[:batch])


def clear_pictures(model: LoadedModel, count: int, seed: int = 0, tries: int = 16) -> NDArray[np.uint8]:
    """`count` random pictures (count, H, W, 3), those first whose selections are decided by clear margins."""
    pictures = random_pictures(model.info, 0)
    margins: Array = np.empty(0, np.float32)
    for attempt in range(tries):
        drawn = random_pictures(model.info, count, seed * tries + attempt)
        images = torch.from_numpy(normalised(drawn, model.info.preprocessing))
        pictures = np.concatenate([pictures, drawn])
        margins = np.concatenate([margins, selection_margins(model, images).numpy()])
        best = np.argsort(margins < CLEAR_MARGIN, kind="stable")[:count]
        pictures, margins = pictures[best], margins[best]
        if margins.min() >= CLEAR_MARGIN:
            break
    return pictures


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
