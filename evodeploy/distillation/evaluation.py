"""The student's agreement with its teacher, and its accuracy, on images that were not trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from evodeploy.distillation.losses import feature_loss, spread_of
from evodeploy.distillation.network import Answers
from evodeploy.distillation.report import Estimate, Quality
from evodeploy.evaluation.statistics import Z, wilson

INVERSE_PENALTY = 0.1  # of the probe, the same as C in scikit-learn


def share(hits: Tensor) -> Estimate:
    """Return the share of true values in `hits` (N,), with Wilson's interval."""
    count = int(hits.sum())
    return Estimate(count / len(hits), *wilson(count, len(hits)))


def mean(values: Tensor) -> Estimate:
    """Return the mean of `values` (N,), with the interval of a normal distribution."""
    centre = float(values.mean())
    spread = Z * float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else 1.0
    return Estimate(centre, centre - spread, min(1.0, centre + spread))


@dataclass(frozen=True)
class Probe:
    """A linear classifier of features, which are first shifted and scaled."""

    centre: Tensor
    spread: Tensor
    weight: Tensor
    bias: Tensor

    @classmethod
    @torch.enable_grad()
    def fitted(cls, features: Tensor, labels: Tensor) -> Probe:
        """Fit a logistic regression of `labels` (N,) on `features` (N, C), with a penalty on its weights."""
        x = features.double()
        centre, spread = x.mean(dim=0), spread_of(x)
        x = (x - centre) / spread
        classes = int(labels.max()) + 1
        weight = torch.zeros(classes, x.shape[1], dtype=torch.float64, requires_grad=True)
        bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
        fit = torch.optim.LBFGS([weight, bias], max_iter=300, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            fit.zero_grad()
            penalty = weight.square().sum() / (2 * INVERSE_PENALTY * len(x))
            total = F.cross_entropy(F.linear(x, weight, bias), labels) + penalty
            total.backward()  # type: ignore[no-untyped-call]
            return total

        fit.step(loss)  # type: ignore[no-untyped-call]
        return cls(centre, spread, weight.detach(), bias.detach())

    def classes(self, features: Tensor) -> Tensor:
        """Return the class (N,) of each of `features` (N, C)."""
        return F.linear((features.double() - self.centre) / self.spread, self.weight, self.bias).argmax(dim=1)


def quality(student: Answers, teacher: Answers, labels: Tensor | None, probe: Probe | None) -> Quality:
    """Return the quality of a student's outputs for N images.

    An image agrees if student and teacher give the same class; a `probe` derives classes from features. Without logits
    and a probe, an image's agreement is 1 minus half the squared difference of its features, in units of their spread
    over the images: 1 for equal features, 0 on average for unrelated ones.
    """
    if student.logits is not None and teacher.logits is not None:
        ours, theirs = student.logits.argmax(dim=1), teacher.logits.argmax(dim=1)
    elif probe is not None:
        ours, theirs = probe.classes(student.features), probe.classes(teacher.features)
    else:
        return Quality(mean(1 - feature_loss(student.features, teacher.features, spread_of(teacher.features)) / 2))
    return Quality(share(ours == theirs), None if labels is None else share(ours == labels))
