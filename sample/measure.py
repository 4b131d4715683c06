"""The cost of the sample's selection, and the tokens that it keeps: `python sample/measure.py [CHECKPOINT]`.

All figures are for the held-out digits. Accuracy: of the dense network, of both selection modes, and of stage-wise
selection made to keep other tokens. Ink: how often a kept token shows ink, compared with any token, and with the tokens
kept for another picture. The latter comparison separates attention to the picture from a preference for positions.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import torch
from digits import Pictures, black, split
from torch import Tensor

from evodeploy.models.checkpoint import load_checkpoint
from evodeploy.models.loaded import LoadedModel
from evodeploy.models.selection import top_k

_INKED = 0.25  # share of the full white-on-black contrast that the mean of an inked patch exceeds


@torch.inference_mode()
def accuracy(model: torch.nn.Module, pictures: Pictures) -> float:
    """Return the share of `pictures` that are classified correctly."""
    hits = (model(pictures.images).argmax(dim=1) == pictures.labels).float()
    return float(hits.mean())


@torch.inference_mode()
def accuracy_keeping(order: Callable[[Tensor], Tensor], model: LoadedModel, pictures: Pictures) -> float:
    """Return the accuracy if every selection keeps the tokens largest in `order(scores)` instead of in the scores."""

    def other_top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
        positions = top_k(order(scores), k)[1]
        return scores.gather(1, positions), positions

    with patch("evodeploy.models.evo_deit.top_k", other_top_k):
        return accuracy(model.module, pictures)


def inked(images: Tensor, patch_size: int) -> Tensor:
    """Return which patches of the normalised `images` (n, 3, H, W) show ink: (n, N) booleans, row-major."""
    contrast = images - black()
    means = torch.nn.functional.avg_pool2d(contrast[:, :1], patch_size).flatten(1)
    return means > _INKED * contrast[:, 0].max()


@torch.inference_mode()
def ink_kept(model: LoadedModel, images: Tensor) -> tuple[float, float]:
    """Return the share of kept tokens that show ink, and that of tokens kept for other pictures that do so here."""
    ink = inked(images, model.config.patch_size).float()
    own, others = [], []
    for kept in model.module.evolve(images).selected:
        own.append(ink.gather(1, kept).mean())
        # Of all pairs (picture, kept set), those of a picture with its own set are left out.
        counts = torch.zeros_like(ink).scatter(1, kept, 1.0).sum(dim=0)
        pairs, same = ink.sum(dim=0) @ counts, ink.gather(1, kept).sum()
        others.append((pairs - same) / (len(ink) * (len(ink) - 1) * kept.shape[1]))
    return float(torch.stack(own).mean()), float(torch.stack(others).mean())


def report(checkpoint: Path) -> str:
    """Return Markdown tables of both measures."""
    _, held = split()
    dense = load_checkpoint(checkpoint, keep_ratios=(1.0,))
    stage = load_checkpoint(checkpoint, keep_ratios=(0.5,), selection="stage")
    layer = load_checkpoint(checkpoint, keep_ratios=(0.5,), selection="layer")
    torch.manual_seed(0)
    least = accuracy_keeping(torch.neg, stage, held)
    chance = [accuracy_keeping(torch.rand_like, stage, held) for _ in range(10)]
    base = float(inked(held.images, dense.config.patch_size).float().mean())
    lines = [
        "| mode | held-out accuracy |",
        "|---|---|",
        f"| dense | {accuracy(dense.module, held):.2%} |",
        f"| stage-wise, keep 0.5 | {accuracy(stage.module, held):.2%} |",
        f"| layer-wise, keep 0.5 | {accuracy(layer.module, held):.2%} |",
        f"| stage-wise, random half instead (mean of {len(chance)}) | {sum(chance) / len(chance):.2%} |",
        f"| stage-wise, least attended half instead | {least:.2%} |",
        "",
        "| share of tokens that carry ink | stage-wise | layer-wise |",
        "|---|---|---|",
        f"| all tokens (chance) | {base:.1%} | {base:.1%} |",
    ]
    ink = [ink_kept(model, held.images) for model in (stage, layer)]
    lines.append(f"| tokens kept for another picture | {ink[0][1]:.1%} | {ink[1][1]:.1%} |")
    lines.append(f"| tokens kept | {ink[0][0]:.1%} | {ink[1][0]:.1%} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(report(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("digits.pth")))
