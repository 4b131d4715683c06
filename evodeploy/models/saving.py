"""Writing checkpoints in the format of the training code."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from evodeploy.files import replacing
from evodeploy.models.layouts import to_published
from evodeploy.models.loaded import LoadedModel
from evodeploy.models.preprocessing import settings_of


def save_checkpoint(
    model: LoadedModel,
    path: Path,
    *,
    elastic: tuple[float, float] | None = None,
    distillation: dict[str, Any] | None = None,
) -> None:
    """Write `model` as the training code would: published tensor names, and an `args` namespace with the variant.

    `elastic` is the lowest and the highest keep ratio that it was trained for. `distillation` records the training.
    """
    config = model.config
    args = argparse.Namespace(
        model=config.name,
        input_size=config.image_size,
        num_heads=config.heads,
        selection=config.selection,
        keep_ratio=list(config.keep_ratios),
        class_names=list(model.info.class_names),
        **settings_of(model.info.preprocessing),
        **{name: list(value) if isinstance(value, tuple) else value for name, value in config.settings.items()},
    )
    if elastic is not None:
        args.elastic = list(elastic)
    content = {"model": to_published(config, model.module.state_dict()), "epoch": 0, "args": args}
    if distillation is not None:
        content["distillation"] = distillation
    write_tensors(content, path)


def write_tensors(content: dict[str, Any], path: Path) -> None:
    """Replace `path` by `content` as torch.save writes it. Raises as `replacing` does."""
    with replacing(path) as draft, draft.open("wb", buffering=0) as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # torch's writer hides the OSError of a full disk in one
            if isinstance(error.__context__, OSError):
                raise OSError(error.__context__.errno, error.__context__.strerror) from error
            raise
