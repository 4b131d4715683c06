"""Losses between a student's outputs and its teacher's outputs, and the labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from evodeploy.distillation.network import Answers

LEAST_SPREAD = 1e-2  # of the mean spread, so that a channel that hardly varies does not dominate the loss


def spread_of(features: Tensor) -> Tensor:
    """Return the standard deviation of each channel of `features` (N, C) over the images: (C,)."""
    spread = features.std(dim=0, correction=0)
    return spread.clamp(min=LEAST_SPREAD * float(spread.mean()) or 1.0)


def feature_loss(student: Tensor, teacher: Tensor, spread: Tensor) -> Tensor:
    """Return the squared difference of features (B, C) in units of the teacher's `spread` (C,), per image: (B,).

    It is averaged over channels. A student that gives the mean features for every image has a loss of 1 on average.
    """
    return ((student - teacher) / spread).square().mean(dim=1)


def answer_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return the Kullback-Leibler divergence of softened class probabilities from logits (B, classes), times T²: (B,).

    Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, 2015.
    """
    ours, theirs = F.log_softmax(student / temperature, dim=1), F.log_softmax(teacher / temperature, dim=1)
    return F.kl_div(ours, theirs, reduction="none", log_target=True).sum(dim=1) * temperature**2


@dataclass(frozen=True)
class Objective:
    """The loss to minimise: on features if `spread` is known, on class probabilities if both have them, on labels."""

    spread: Tensor | None
    temperature: float
    label_weight: float = 0.0

    def __call__(self, student: Answers, teacher: Answers, labels: Tensor | None) -> Tensor:
        """Return the sum of the loss over the B images."""
        loss = student.features.new_zeros(len(student.features))
        if self.spread is not None:
            loss = loss + feature_loss(student.features, teacher.features, self.spread)
        if student.logits is not None and teacher.logits is not None:
            loss = loss + answer_loss(student.logits, teacher.logits, self.temperature)
            if labels is not None and self.label_weight:
                loss = loss + self.label_weight * F.cross_entropy(student.logits, labels, reduction="none")
        return loss.sum()


@torch.no_grad()
def agreement(student: Answers, teacher: Answers, spread: Tensor | None) -> Tensor:
    """Return how many of the B images have the teacher's class; for features, the sum of 1 minus half their loss."""
    if student.logits is not None and teacher.logits is not None:
        return (student.logits.argmax(dim=1) == teacher.logits.argmax(dim=1)).float().sum()
    assert spread is not None  # networks without classes are compared by features
    return (1 - feature_loss(student.features, teacher.features, spread) / 2).sum()
