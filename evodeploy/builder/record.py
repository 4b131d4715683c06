"""The results of building and refitting."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evodeploy.builder.decisions import Decisions
from evodeploy.engines.tensorrt.sidecar import PlanRecord, sidecar_path
from evodeploy.text import megabytes

_HERE = "the GPU here"


@dataclass(frozen=True)
class Build:
    """An engine file that was written or, with `dry_run`, would be written.

    `engine` holds the decisions before TensorRT started. `record` is the record next to the file, None after a dry run.
    `seconds` is the duration.
    """

    path: Path
    seconds: float
    engine: Decisions = field(repr=False)
    record: PlanRecord | None = field(repr=False)

    def __str__(self) -> str:
        engine = self.engine
        what = f"{engine.precision}, {engine.rest} elsewhere," if engine.rest else engine.precision
        where = ", ".join(engine.targets) or _HERE
        batches = "; ".join(map(str, engine.profiles))
        if self.record is not None:
            size = f"{self.path}  {megabytes(self.record.plan_bytes)}  {self.seconds:.1f} s"
            return (
                f"{size}  {what} for {where}, batch {batches}\n{sidecar_path(self.path)}  what was built, and checksums"
            )
        lines = (
            f"would build {self.path}: {what} with {engine.runtime}",
            f"  for {where}, batch {batches}",
            *([f"  elastic: {engine.keep} tokens kept"] if engine.keep else []),
            f"  {engine.attentions} attentions, {len(engine.kept_fp32)} nodes kept in FP32",
            *(f"  {name.replace('_', ' ')}: {value}" for name, value in engine.options.items()),
        )
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, as `evodeploy build-engine --json` prints them."""
        if self.record is not None:
            return dataclasses.asdict(self.record) | {"engine": str(self.path), "seconds": self.seconds}
        targets = list(self.engine.targets) or [_HERE]
        return dataclasses.asdict(self.engine) | {"engine": str(self.path), "targets": targets}


@dataclass(frozen=True)
class Refit:
    """An engine file that was written with the weights of `onnx`. `record` is the record next to it."""

    path: Path
    onnx: Path
    seconds: float
    record: PlanRecord = field(repr=False)

    def __str__(self) -> str:
        size = f"{self.path}  {megabytes(self.record.plan_bytes)}  {self.seconds:.1f} s"
        return f"{size}  with the weights of {self.onnx}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, as `evodeploy refit --json` prints them."""
        return {"engine": str(self.path), "bytes": self.record.plan_bytes, "seconds": self.seconds}
