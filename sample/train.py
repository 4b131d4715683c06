"""Train the sample model: `python sample/train.py [--out DIR] [--seed N] [--epochs N]`.

It is an Evo-DeiT small enough for one CPU core, trained like the published models: the class token has its own head and
loss, so that its attention becomes meaningful. Selection is layer-wise for the first two thirds of the epochs, and
stage-wise after that (the paper's layer-to-stage schedule). The same seed gives the same weights on the same machine
and version of torch. Writes digits.pth, training-log.jsonl and images/ into DIR.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from digits import CLASS_NAMES, IMAGE_SIZE, Pictures, black, save_examples, split
from measure import accuracy, report
from torch import Tensor, nn

from evodeploy.models.evo_deit import EvoDeiT
from evodeploy.models.loaded import LoadedModel, model_info
from evodeploy.models.saving import save_checkpoint
from evodeploy.models.zoo import EvoDeiTConfig

CONFIG = EvoDeiTConfig(
    "evo_deit_digits", width=64, heads=2, image_size=IMAGE_SIZE, patch_size=8, mlp_ratio=2.0, num_classes=10
)
BATCH = 64
RATE = 1.5e-3
WEIGHT_DECAY = 0.05
WARM_UP = 5  # epochs
SMOOTHING = 0.1


def main() -> None:
    """Train, save, measure."""
    parser = argparse.ArgumentParser(description="Train the sample Evo-DeiT on scikit-learn's digits.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder to write to")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=180)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # more threads gain little for such small tensors, and lose much on a busy machine
    torch.manual_seed(args.seed)
    torch.use_deterministic_algorithms(True)

    model = train(initialised(CONFIG), args.epochs, args.out / "training-log.jsonl")
    checkpoint = args.out / "digits.pth"
    loaded = LoadedModel(model.eval(), model.config, model_info(model.config, CLASS_NAMES))
    save_checkpoint(loaded, checkpoint, epoch=args.epochs)
    save_examples(args.out / "images")
    print(f"{checkpoint}: {checkpoint.stat().st_size / 1e6:.2f} MB\n\n{report(checkpoint)}")


def initialised(config: EvoDeiTConfig) -> EvoDeiT:
    """Return a new network with both heads: truncated normal weights of 0.02, biases 0, norms 1."""
    model = EvoDeiT(config, class_head=True)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            nn.init.trunc_normal_(parameter, std=0.02)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
    return model


def train(model: EvoDeiT, epochs: int, log: Path) -> EvoDeiT:
    """Train `model` for `epochs`, with one line of JSON in `log` for each."""
    pictures, held = split()
    steps = math.ceil(len(pictures.labels) / BATCH)
    decayed = [p for p in model.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if p.ndim != 2]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step / steps, epochs))
    with log.open("w", encoding="utf-8") as lines:
        for epoch in range(1, epochs + 1):
            model.config = replace(CONFIG, selection="layer" if epoch <= epochs * 2 // 3 else "stage")
            began = time.perf_counter()
            loss, hits = _epoch(model, pictures, optimizer, schedule)
            seconds = time.perf_counter() - began
            row = {
                "epoch": epoch,
                "selection": model.config.selection,
                "loss": round(loss, 4),
                "train_accuracy": round(hits, 4),
                "held_out_accuracy": round(accuracy(model.eval(), held), 4),
                "seconds": round(seconds, 2),
            }
            print(json.dumps(row), file=lines, flush=True)
            print(row, flush=True)
    return model


def _rate(epoch: float, epochs: int) -> float:
    """Return the learning rate as a share of its maximum: linear warm-up, then half a cosine."""
    if epoch < WARM_UP:
        return (epoch + 0.1) / (WARM_UP + 0.1)
    return 0.5 * (1 + math.cos(math.pi * (epoch - WARM_UP) / max(1, epochs - WARM_UP)))


def _epoch(
    model: EvoDeiT,
    pictures: Pictures,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LambdaLR,
) -> tuple[float, float]:
    """Run one pass over `pictures`. Returns the mean loss, and the share classified correctly (augmented pictures)."""
    model.train()
    total, hits = 0.0, 0
    for batch in torch.split(torch.randperm(len(pictures.labels)), BATCH):
        labels = pictures.labels[batch]
        evolved = model.evolve(augmented(pictures.images[batch]))
        logits, class_token_logits = model.classify(evolved), model.classify_class_token(evolved)
        loss = F.cross_entropy(logits, labels, label_smoothing=SMOOTHING)
        loss = loss + F.cross_entropy(class_token_logits, labels, label_smoothing=SMOOTHING)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        total += loss.item() * len(batch)
        hits += int((logits.argmax(dim=1) == labels).sum())
    return total / len(pictures.labels), hits / len(pictures.labels)


def augmented(images: Tensor) -> Tensor:
    """Return `images` (n, 3, H, W), each slightly rotated, scaled and shifted, with a little noise."""
    count = len(images)

    def uniform(limit: float) -> Tensor:
        return (2 * torch.rand(count) - 1) * limit

    angle, stretch = uniform(math.radians(12)), 1 + uniform(0.12)
    rows = [
        torch.stack([stretch * angle.cos(), -stretch * angle.sin(), uniform(0.15)], dim=1),
        torch.stack([stretch * angle.sin(), stretch * angle.cos(), uniform(0.15)], dim=1),
    ]
    grid = F.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
    blank = black()
    moved = F.grid_sample(images - blank, grid, align_corners=False)  # pixels from outside are 0, so black
    return moved + blank + 0.1 * torch.randn_like(moved)


if __name__ == "__main__":
    main()
