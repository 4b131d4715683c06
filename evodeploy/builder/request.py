"""What an engine is built from, and how: all that shapes it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from evodeploy.builder.options import BuilderOptions
from evodeploy.specs import Precision, check_choice

Batches = tuple[int | None, int | None, int | None]  # the smallest, the one to be fastest at, the largest


@dataclass(frozen=True)
class BuildRequest:
    """One engine to build.

    `precision` None keeps the ONNX file's; for quantized files, it is the precision of the other operators. `profiles`
    empty means one of the default range, and None in a profile is its default. `images` is a folder to measure the
    range of activations on before FP16, in place of random ones; `log` a file for all that TensorRT says. `keep_fp32`
    are patterns of nodes that stay in FP32 when the others are converted.
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
        """Refuse a precision that is none: raises UsageError."""
        check_choice("precision", self.precision, Precision)
