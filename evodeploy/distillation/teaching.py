"""The targets of a step, and the conversion of images to the networks' input."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evodeploy.distillation.augmentation import augmented
from evodeploy.distillation.data import Pictures, Pixels
from evodeploy.distillation.memory import in_parts
from evodeploy.distillation.network import Answers, answers, feature_width, reduced
from evodeploy.distillation.processes import Processes
from evodeploy.distillation.recipe import Ratios, TrainingPrecision
from evodeploy.distillation.report import LOG_EVERY
from evodeploy.models.network import Network
from evodeploy.specs import Preprocessing

_log = logging.getLogger(__name__)

AT_ONCE = 32  # the most images that are evaluated at once

Teacher = Callable[[Tensor, Tensor], Answers]  # positions (B,) and images (B, 3, S, S) to targets


def tensor_of(
    pixels: NDArray[np.uint8], preprocessing: Preprocessing, device: torch.device, numbers: Tensor | None = None
) -> Tensor:
    """Convert `pixels` (B, S, S, 3) to normalised images (B, 3, S, S), augmented if there are `numbers` (B, 7)."""
    images = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float() / 255
    if numbers is not None:
        images = augmented(images, numbers)
    mean, std = (torch.tensor(each, device=device).reshape(3, 1, 1) for each in (preprocessing.mean, preprocessing.std))
    return (images - mean) / std


@torch.no_grad()
def all_answers(
    network: Network,
    pictures: Pictures,
    ratios: Ratios | None,
    preprocessing: Preprocessing,
    device: torch.device,
    processes: Processes,
    precision: TrainingPrecision,
    doing: str,
) -> Answers:
    """Return the outputs of `network` for all `pictures`, on the CPU; see `answers` for `ratios`.

    Each process computes a share. If memory runs out, fewer images are computed at once. If it takes long, progress is
    logged under the description `doing`.
    """
    config = network.config
    found = Answers(
        torch.zeros(len(pictures), feature_width(config), device=device),
        torch.zeros(len(pictures), config.num_classes, device=device) if config.num_classes else None,
    )
    chunks = [range(start, min(start + AT_ONCE, len(pictures))) for start in range(0, len(pictures), AT_ONCE)]
    own = [chunks[i] for i in processes.share(range(len(chunks)))]

    def answer(first: int, pixels: Pixels, at_once: int) -> None:
        for begin in range(0, len(pixels), at_once):
            images = tensor_of(pixels[begin : begin + at_once], preprocessing, device)
            with reduced(precision, device):
                given = answers(network, images, ratios)
            rows = slice(first + begin, first + begin + len(images))
            found.features[rows] = given.features
            if found.logits is not None and given.logits is not None:
                found.logits[rows] = given.logits

    at_once, logged = AT_ONCE, time.perf_counter()
    for chunk, pixels in zip(own, pictures.in_turn(own), strict=True):
        _, at_once = in_parts(partial(answer, chunk.start, pixels), at_once, device)
        if time.perf_counter() - logged >= LOG_EVERY:
            logged = time.perf_counter()
            _log.info("%s: %d of %d images", doing, chunk.stop, len(pictures))
    logits = None if found.logits is None else processes.add(found.logits).cpu()
    return Answers(processes.add(found.features).cpu(), logits)


def remembered(targets: Answers, device: torch.device) -> Teacher:
    """Return a teacher that looks up `targets` computed before, for images that do not change."""

    def teacher(positions: Tensor, images: Tensor) -> Answers:
        rows = targets.rows(positions)
        return Answers(rows.features.to(device), None if rows.logits is None else rows.logits.to(device))

    return teacher


def computed(network: Network) -> Teacher:
    """Return a teacher that computes targets for the same images that the student gets."""

    @torch.no_grad()
    def teacher(positions: Tensor, images: Tensor) -> Answers:
        return answers(network, images)

    return teacher
