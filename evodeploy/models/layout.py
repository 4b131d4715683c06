"""What a family's published checkpoints look like, as one frozen record for each family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from evodeploy.models.network import Network
from evodeploy.models.zoo import ModelConfig
from evodeploy.specs import Selection

State = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Hints:
    """What the training run's `args` say beyond the tensors; a field that is absent or of another type is None."""

    model: str | None = None
    num_heads: int | None = None
    selection: Selection | None = None
    keep_ratios: tuple[float, ...] | None = None
    class_names: tuple[str, ...] = ()

    @classmethod
    def from_args(cls, args: Mapping[str, Any]) -> Hints:
        """Read what is known and of the right type from the attributes of the `args` namespace."""
        model, heads, selection = args.get("model"), args.get("num_heads"), args.get("selection")
        ratios, names = args.get("keep_ratio"), args.get("class_names")
        listed = isinstance(ratios, (list, tuple)) and all(isinstance(r, float) and 0 < r <= 1 for r in ratios)
        return cls(
            model=model if isinstance(model, str) else None,
            num_heads=heads if isinstance(heads, int) and heads > 0 else None,
            selection=selection if selection in ("stage", "layer") else None,
            keep_ratios=tuple(ratios) if listed and ratios else None,
            class_names=tuple(map(str, names)) if isinstance(names, (list, tuple)) else (),
        )


@dataclass(frozen=True)
class Layout:
    """How one family names its tensors. Shapes and states are keyed by the published names.

    `infer` reads a configuration off the shapes; `required` and `optional` (training-only) list the tensors that a
    configuration has; `to_module` and `to_published` translate a complete state dict to the network's own names and
    back, and `network` builds the module.
    """

    family: str
    config: type[ModelConfig]
    recognises: Callable[[Shapes], bool]
    infer: Callable[[Shapes, Hints], ModelConfig]
    required: Callable[[ModelConfig], Shapes]
    optional: Callable[[ModelConfig], Shapes]
    to_module: Callable[[State], State]
    to_published: Callable[[State], State]
    network: Callable[[ModelConfig], Network]
