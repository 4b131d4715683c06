"""The request to build an engine: its source and all options."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from evodeploy.builder.options import BuilderOptions
from evodeploy.specs import Precision, check_choice

Batches = tuple[int | None, int | None, int | None]  # the smallest, the one to optimize for, the largest


@dataclass(frozen=True)
class BuildRequest:
    """One engine to build.

    With `precision` None it is the precision of the ONNX. For quantized files it applies to the other operators. Empty
    `profiles` mean one with the default range, and None in a profile is the default. `images` is a folder on which the
    range of activations is measured for FP16, instead of random images. `log` is a file for all messages of TensorRT.
    `keep_fp32` holds patterns of nodes that stay in FP32 when the others are converted.
    """

    onnx: Path
    output: Path
    precision: Precision | None = None
    profiles: tuple[Batches, ...] = ()
    runtime: str | None = None
    targets: tuple[str, ...] = ()
    options: BuilderOptions = dataclasses.field(default_factory=BuilderOptions)
    images: Path | None = None
    log: Path | None = None
    keep_fp32: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the precision. Raises UsageError if it is unknown."""
        check_choice("precision", self.precision, Precision)
