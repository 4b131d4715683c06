"""The list of published models with their costs, and checkpoints with random weights for them."""

from __future__ import annotations

import dataclasses
import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evodeploy.errors import needs
from evodeploy.files import claimed
from evodeploy.kinds import CHECKPOINT
from evodeploy.models.cost import cost_of
from evodeploy.models.zoo import ZOO, dense_twin, named
from evodeploy.text import megabytes


@dataclass(frozen=True)
class PublishedModel:
    """A published model: pixels of a side, parameters, GFLOPs for one image, tokens that each block computes on.

    A multiply-add counts as one operation, as in the papers. `dense_gflops` is for the network that keeps every token.
    """

    name: str
    image_size: int
    parameters: int
    gflops: float
    dense_gflops: float
    tokens_per_block: tuple[int, ...]

    @property
    def token_runs(self) -> str:
        """The tokens per block in short form: 196, 196, 98 as 2×196 1×98."""
        runs = itertools.groupby(self.tokens_per_block)
        return " ".join(f"{len(list(blocks))}×{count}" for count, blocks in runs)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return dataclasses.asdict(self) | {"tokens_per_block": list(self.tokens_per_block)}


@dataclass(frozen=True)
class RandomCheckpoint:
    """A checkpoint file with random weights that was written."""

    path: Path
    size: int
    model: str
    seed: int

    def __str__(self) -> str:
        return f"{self.path}  {megabytes(self.size)}  {self.model}, random weights of seed {self.seed}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, as `evodeploy init --json` prints them."""
        return {"checkpoint": str(self.path), "bytes": self.size, "model": self.model, "seed": self.seed}


def published_models() -> tuple[PublishedModel, ...]:
    """Return all published models; needs no torch."""
    found = []
    for config in ZOO.values():
        cost, dense = cost_of(config), cost_of(dense_twin(config))
        sizes = cost.parameters, cost.gflops, dense.gflops
        found.append(PublishedModel(config.name, config.image_size, *sizes, tuple(config.tokens_per_block)))
    return tuple(found)


def random_checkpoint(
    model: str, output: str | os.PathLike[str] | None = None, *, seed: int = 0, force: bool = False
) -> RandomCheckpoint:
    """Write a checkpoint of the published `model` with random weights, in the published format.

    `output` is `MODEL.pth` in the current folder by default; `force` replaces an existing file. Raises UsageError if
    no published model has that name.
    """
    config = named(model)
    path = Path(f"{model}.pth") if output is None else Path(output)
    with needs("export"):
        from evodeploy.models.random_weights import random_model
        from evodeploy.models.saving import save_checkpoint
    with claimed([(path, CHECKPOINT)], force):
        save_checkpoint(random_model(config, seed), path)
    return RandomCheckpoint(path, path.stat().st_size, model, seed)
