"""The optimizer: AdamW, with gradients summed over processes and scaled for FP16."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from evodeploy.distillation.processes import Processes
from evodeploy.distillation.recipe import Recipe

TYPICAL = 0.02  # root mean square of a matrix's weights in newly initialised transformers
LEAST_SHARE = 0.1


def share_of(parameter: Tensor) -> float:
    """Return the share of the learning rate for `parameter`, which is lower if its weights are small.

    AdamW changes every weight by about the learning rate, however small the weight is. In matrices with folded layer
    scales, such as DINOv2's, that would be many times the size of a weight.
    """
    if parameter.ndim < 2:
        return 1.0
    size = float(parameter.detach().float().square().mean().sqrt())
    return min(1.0, max(LEAST_SHARE, size / TYPICAL))


class Optimizer:
    """AdamW on the weights of `network`. Matrices decay; biases, norms and tokens do not. See `share_of`."""

    def __init__(self, network: nn.Module, recipe: Recipe, device: torch.device) -> None:
        self.parameters = [*network.parameters()]
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)  # also for parameters that a step does not use
        groups = [
            {"params": [each], "share": share_of(each), "weight_decay": recipe.weight_decay * (each.ndim in (2, 4))}
            for each in self.parameters
        ]
        self._recipe = recipe
        self._adam = torch.optim.AdamW(groups, lr=recipe.rate, fused=True)
        self._scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")

    def clear(self) -> None:
        """Set all gradients to zero."""
        self._adam.zero_grad(set_to_none=False)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of `loss`."""
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def step(self, progress: float, processes: Processes, sums: Tensor) -> Tensor:
        """Update the weights, and return `sums`, float64 numbers, added over all processes like the gradients.

        Raises FloatingPointError, and changes no weights, if a sum or a gradient is not finite. In FP16 a step with
        gradients that are too large is skipped, and the next ones are scaled less.
        """
        sums = self._gathered(processes, sums)
        if not bool(sums.isfinite().all()):
            raise FloatingPointError("the loss is not a finite number")
        self._scaler.unscale_(self._adam)
        norm = nn.utils.clip_grad_norm_(self.parameters, self._recipe.clip)
        if not math.isfinite(float(norm)) and not self._scaler.is_enabled():
            raise FloatingPointError("a gradient is not a finite number")
        for group in self._adam.param_groups:
            group["lr"] = self._recipe.rate * self._recipe.rate_at(progress) * group["share"]
        self._scaler.step(self._adam)
        self._scaler.update()
        return sums

    def _gathered(self, processes: Processes, sums: Tensor) -> Tensor:
        if processes.size == 1:
            return sums
        gradients = [each.grad for each in self.parameters if each.grad is not None]
        flat = processes.add(torch.cat([each.flatten() for each in gradients]))
        for gradient, part in zip(gradients, torch.split(flat, [each.numel() for each in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))
        return processes.add(sums)

    def state(self) -> dict[str, object]:
        """Return everything that a resumed training needs."""
        return {"adam": self._adam.state_dict(), "scaler": self._scaler.state_dict()}

    def restore(self, state: dict[str, object]) -> None:
        """Restore what `state` returned."""
        self._adam.load_state_dict(state["adam"])  # type: ignore[arg-type]
        self._scaler.load_state_dict(state["scaler"])  # type: ignore[arg-type]
