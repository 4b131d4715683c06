"""The result of an export."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evodeploy.specs import ModelInfo
from evodeploy.text import megabytes

if TYPE_CHECKING:
    from evodeploy.compare.parity import Check


@dataclass(frozen=True)
class Export:
    """An ONNX file that was written, and the checks against PyTorch that its FP32 graph passed before it was kept.

    `info` is the file's metadata, `nodes` the number of its operators, `size` its bytes, `seconds` the duration of the
    export. `checks` is empty if `verify` was off. `kept_fp32` maps the names of nodes that a conversion left in FP32
    to the reasons.
    """

    path: Path
    size: int
    seconds: float
    nodes: int
    info: ModelInfo = field(repr=False)
    checks: tuple[Check, ...] = field(repr=False)
    kept_fp32: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def verified(self) -> bool:
        """Whether the graph was compared with PyTorch: in FP32, before a conversion to another precision."""
        return bool(self.checks)

    def __str__(self) -> str:
        graph = "" if self.info.precision == "fp32" else "of its FP32 graph "
        checked = f"all {len(self.checks)} checks {graph}passed" if self.verified else "not verified"
        return f"{self.path}  {megabytes(self.size)}  {self.seconds:.1f} s  {checked}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, as `evodeploy export --json` prints them."""
        return {
            "onnx": str(self.path),
            "bytes": self.size,
            "seconds": self.seconds,
            "model": self.info.model,
            "precision": self.info.precision,
            "keep_ratios": list(self.info.keep_ratios),
            "elastic": [dataclasses.asdict(stage) for stage in self.info.elastic],
            "fast_path": self.info.fast_path,
            "input": self.info.input_format,
            "top_k": self.info.top_k,
            "preprocessing": dataclasses.asdict(self.info.preprocessing),
            "nodes": self.nodes,
            "kept_fp32": dict(self.kept_fp32),
            "verified": self.verified,
            "checks": [
                {"output": check.output, "batch": check.batch, "error": check.error, "limit": check.limit}
                for check in self.checks
            ],
        }
