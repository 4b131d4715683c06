"""What every pass returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from onnx import ModelProto


@dataclass(frozen=True)
class Changed:
    """A model that a pass made of another: `count` says how often it did its work.

    `kept` names the operators that the pass left in floating point as they were, with the reason of each. A pass does
    not alter the model it is given; where it has nothing to do, that is what it returns.
    """

    model: ModelProto
    count: int
    kept: Mapping[str, str] = field(default_factory=dict)
