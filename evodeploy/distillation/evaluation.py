"""How much a student answers as its teacher does, and how often rightly, on images that were not trained on."""

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

INVERSE_PENALTY = 0.1  # of the probe, as scikit-learn's C


def share(hits: Tensor) -> Estimate:
    """The share of pictures in `hits` (N,), booleans (Wilson's interval)."""
    count = int(hits.sum())
    return Estimate(count / len(hits), *wilson(count, len(hits)))


def mean(values: Tensor) -> Estimate:
    """The mean of `values` (N,), with the interval of a normal distribution."""
    centre = float(values.mean())
    spread = Z * float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else 1.0
    return Estimate(centre, centre - spread, min(1.0, centre + spread))


@dataclass(frozen=True)
class Probe:
    """A linear classifier of features that are first shifted and scaled."""

    centre: Tensor
    spread: Tensor
    weight: Tensor
    bias: Tensor

    @classmethod
    @torch.enable_grad()
    def fitted(cls, features: Tensor, labels: Tensor) -> Probe:
        """Logistic regression of `labels` (N,) on `features` (N, C), with a penalty on its weights."""
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
        """The class (N,) of each of `features` (N, C)."""
        return F.linear((features.double() - self.centre) / self.spread, self.weight, self.bias).argmax(dim=1)


def quality(student: Answers, teacher: Answers, labels: Tensor | None, probe: Probe | None) -> Quality:
    """Of a student's answers to N pictures.

    A picture agrees where both give the same class, which of features a `probe` gives. Without one, a picture's
    agreement is 1 - half the squared difference of its features, in units of their spread over the pictures: 1 for
    equal ones, 0 on average for unrelated ones.
    """
    if student.logits is not None and teacher.logits is not None:
        ours, theirs = student.logits.argmax(dim=1), teacher.logits.argmax(dim=1)
    elif probe is not None:
        ours, theirs = probe.classes(student.features), probe.classes(teacher.features)
    else:
        return Quality(mean(1 - feature_loss(student.features, teacher.features, spread_of(teacher.features)) / 2))
    return Quality(share(ours == theirs), None if labels is None else share(ours == labels))
