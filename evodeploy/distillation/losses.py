"""How far a student's answers are from its teacher's, and from the labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from evodeploy.distillation.network import Answers

LEAST_SPREAD = 1e-2  # of the mean spread: a channel that hardly varies must not decide the loss


def spread_of(features: Tensor) -> Tensor:
    """The standard deviation of each channel of `features` (N, C) over the pictures: (C,)."""
    spread = features.std(dim=0, correction=0)
    return spread.clamp(min=LEAST_SPREAD * float(spread.mean()) or 1.0)


def feature_loss(student: Tensor, teacher: Tensor, spread: Tensor) -> Tensor:
    """The squared difference of features (B, C) in units of the teacher's `spread` (C,), averaged over channels: (B,).

    An answer that is the same for every picture costs 1.
    """
    return ((student - teacher) / spread).square().mean(dim=1)


def answer_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """The Kullback-Leibler divergence of softened class probabilities from logits (B, classes), times T²: (B,).

    Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, 2015.
    """
    ours, theirs = F.log_softmax(student / temperature, dim=1), F.log_softmax(teacher / temperature, dim=1)
    return F.kl_div(ours, theirs, reduction="none", log_target=True).sum(dim=1) * temperature**2


@dataclass(frozen=True)
class Objective:
    """What is minimised: features where `spread` is known, classes' probabilities where both have them, labels."""

    spread: Tensor | None
    temperature: float
    label_weight: float = 0.0

    def __call__(self, student: Answers, teacher: Answers, labels: Tensor | None) -> Tensor:
        """The sum over the B pictures."""
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
    """How many of the B pictures have the teacher's class; of features, the sum of 1 - half their loss."""
    if student.logits is not None and teacher.logits is not None:
        return (student.logits.argmax(dim=1) == teacher.logits.argmax(dim=1)).float().sum()
    assert spread is not None  # networks without classes are compared by features
    return (1 - feature_loss(student.features, teacher.features, spread) / 2).sum()
