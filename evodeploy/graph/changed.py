"""The result of every pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from onnx import ModelProto

from evodeploy.errors import UsageError
from evodeploy.specs import Precision


@dataclass(frozen=True)
class Changed:
    """The model that a pass made from another; `count` is the number of places that it changed.

    `kept` maps the names of operators that the pass left in floating point to the reasons. A pass does not alter its
    input model; it returns that model if there is nothing to change.
    """

    model: ModelProto
    count: int
    kept: Mapping[str, str] = field(default_factory=dict)

    def check_changed(self, precision: Precision, keep_fp32: Sequence[str]) -> None:
        """Raise UsageError if the patterns `keep_fp32` left nothing to convert to `precision`."""
        if keep_fp32 and not self.count:
            raise UsageError(f"--keep-fp32 leaves no node to convert to {precision.upper()}: name fewer")
