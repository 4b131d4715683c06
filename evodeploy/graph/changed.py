"""What every pass returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from onnx import ModelProto

from evodeploy.errors import UsageError
from evodeploy.specs import Precision


@dataclass(frozen=True)
class Changed:
    """A model that a pass made of another: `count` says how often it did its work.

    `kept` names the operators that the pass left in floating point as they were, with the reason of each. A pass does
    not alter the model it is given; where it has nothing to do, that is what it returns.
    """

    model: ModelProto
    count: int
    kept: Mapping[str, str] = field(default_factory=dict)

    def check_changed(self, precision: Precision, keep_fp32: Sequence[str]) -> None:
        """Raise UsageError where the patterns `keep_fp32` left nothing to convert to `precision`."""
        if keep_fp32 and not self.count:
            raise UsageError(f"--keep-fp32 leaves no node for {precision.upper()}: name fewer")
