"""The description of a family's published checkpoints, and functions that read sizes from tensor shapes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from torch import Tensor

from evodeploy.errors import BadFileError
from evodeploy.models.network import Network
from evodeploy.models.preprocessing import Stated, stated_by_settings
from evodeploy.models.zoo import ModelConfig
from evodeploy.specs import FastPath, Pooling, Selection

State = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Hints:
    """Facts in the training run's `args`, or in a hub's config, that the tensors do not show.

    A field that is absent or of another type is None. `num_heads` is one number, or one for each stage of an Evo-LeViT.
    `global_pool` is timm's name of the pooling: token, avg and others. `activation` is that between an MLP's layers.
    `stated` holds what each source states about preprocessing, in order of priority.
    """

    model: str | None = None
    num_heads: int | tuple[int, ...] | None = None
    selection: Selection | None = None
    keep_ratios: tuple[float, ...] | None = None
    class_names: tuple[str, ...] = ()
    stages: tuple[int, ...] | None = None
    pooling: Pooling | None = None
    norm_eps: float | None = None
    fast_path: FastPath | None = None
    global_pool: str | None = None
    activation: str | None = None
    stated: tuple[Stated, ...] = ()

    @classmethod
    def from_args(cls, args: Mapping[str, Any]) -> Hints:
        """Read the known attributes of the right type from the `args` namespace."""
        model, selection = args.get("model"), args.get("selection")
        names = args.get("class_names")
        pooling, eps, stages = args.get("pooling"), args.get("norm_eps"), args.get("stages")
        given = args.get("model_kwargs")
        more = given if isinstance(given, Mapping) else {}
        fast_path, activation = args.get("fast_path"), more.get("act_layer")
        global_pool = args.get("gp") or more.get("global_pool")
        numbered = isinstance(stages, (list, tuple)) and all(isinstance(block, int) for block in stages)
        return cls(
            model=model if isinstance(model, str) else None,
            num_heads=_head_counts(args.get("num_heads", more.get("num_heads"))),
            selection=selection if selection in ("stage", "layer") else None,
            keep_ratios=_shares(args.get("keep_ratio")),
            class_names=tuple(map(str, names)) if isinstance(names, (list, tuple)) else (),
            stages=tuple(stages) if numbered and stages else None,
            pooling=pooling if pooling in ("mean", "class") else None,
            norm_eps=eps if isinstance(eps, float) and 0 < eps < 1 else None,
            fast_path=fast_path if fast_path in ("rest", "merge") else None,
            global_pool=global_pool if isinstance(global_pool, str) else None,
            activation=activation if isinstance(activation, str) else None,
            stated=(stated_by_settings(args),),
        )


def _head_counts(value: Any) -> int | tuple[int, ...] | None:
    counts = value if isinstance(value, (list, tuple)) else (value,)
    if not counts or not all(isinstance(count, int) and count > 0 for count in counts):
        return None
    return tuple(counts) if counts is value else counts[0]


def _shares(value: Any) -> tuple[float, ...] | None:
    """Return one share above 0 and up to 1, or several, as a tuple."""
    shares = value if isinstance(value, (list, tuple)) else (value,)
    numbers = all(isinstance(share, (int, float)) and not isinstance(share, bool) for share in shares)
    return tuple(map(float, shares)) if shares and numbers and all(0 < share <= 1 for share in shares) else None


def shape_of(shapes: Shapes, name: str, axes: int) -> tuple[int, ...]:
    """Return the shape of the tensor `name`; raises BadFileError if it is missing or does not have `axes` axes."""
    found = shapes.get(name)
    if found is None or len(found) != axes or 0 in found:
        raise BadFileError(f"the checkpoint's '{name}' is {found or 'missing'}, expected a tensor of {axes} axes")
    return found


def grid_of(shapes: Shapes, name: str) -> int:
    """Return the patches along one side, from the position embeddings `name` (1, N + 1, C); raises BadFileError."""
    rows = shape_of(shapes, name, 3)[1]
    grid = math.isqrt(rows - 1)
    if grid**2 + 1 != rows:
        raise BadFileError(f"'{name}' has {rows} rows, expected those of a square grid and a class token")
    return grid


def depth_of(shapes: Shapes, start: str) -> int:
    """Return the number of blocks, from names that begin with `start` and a block's number; raises BadFileError."""
    depth = 1 + max(int(match[1]) for name in shapes if (match := re.match(rf"{start}\.(\d+)\.", name)))
    if depth > len(shapes):
        raise BadFileError(f"the checkpoint names block {depth - 1} but holds only {len(shapes)} tensors")
    return depth


def ratio_of(hidden: int, width: int) -> float:
    """Return the MLP ratio at which int(ratio · width) is `hidden`."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)


C = TypeVar("C", bound=ModelConfig)


def unchanged(state: State) -> State:
    """Return `state` as it is, for families in which each tensor has one name."""
    return state


@dataclass(frozen=True)
class Layout(Generic[C]):
    """The tensor names of one family. Shapes and states are keyed by the published names.

    `infer` derives a configuration from the shapes; `required` and `optional` (training-only) list the tensors that a
    configuration has. `to_module` translates a complete state dict to the network's own names, and `network` builds the
    module. `canonical` runs before all of them: if a family's files hold a tensor under two names, it keeps one.
    `at_grid` resizes a state's position embeddings to a grid of that many tokens a side; it is None if a network's
    size is fixed. `selects` is true if the family is trained with token selection.
    """

    family: str
    config: type[C]
    recognises: Callable[[Shapes], bool]
    infer: Callable[[Shapes, Hints], C]
    required: Callable[[C], Shapes]
    optional: Callable[[C], Shapes]
    to_module: Callable[[State], State]
    network: Callable[[C], Network]
    canonical: Callable[[State], State] = unchanged
    at_grid: Callable[[State, int], State] | None = None
    selects: bool = True
