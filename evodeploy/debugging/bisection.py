"""The smallest part of a network that an engine's builder refuses."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from evodeploy.arguments import checked, several_names
from evodeploy.engines.device import onnxruntime_extra
from evodeploy.errors import UsageError, needs
from evodeploy.files import check_input, claimed
from evodeploy.kinds import ONNX

SHOWN = 8  # nodes that the text lists


@dataclass(frozen=True)
class Bisection:
    """What of the ONNX file `onnx` the builder `runtime` refuses: the `nodes` in the file `part`, with its `reason`.

    `part` is None, and nothing is refused, where all of it builds at the fixed `batch`. `builds` is how many were
    tried.
    """

    onnx: Path
    runtime: str
    part: Path | None
    nodes: tuple[str, ...]
    reason: str
    builds: int
    batch: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, as `evodeploy bisect --json` prints them."""
        return dataclasses.asdict(self) | {"onnx": str(self.onnx), "part": str(self.part) if self.part else None}

    def __str__(self) -> str:
        if self.part is None:
            return f"{self.onnx} builds with {self.runtime} at a batch of {self.batch}: nothing of it is refused"
        names = ", ".join(self.nodes[:SHOWN]) + (f" and {len(self.nodes) - SHOWN} more" if self.nodes[SHOWN:] else "")
        return (
            f"{self.runtime} refuses {names}: {self.reason}\n"
            f"{self.part}  the smallest part that it refuses, found in {self.builds} builds; nodes: {len(self.nodes)}"
        )


@checked
def bisect(
    onnx: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    precision: Literal["fp16", "bf16"] | None = None,
    runtime: str | None = None,
    targets: str | Sequence[str] = (),
    batch: int = 2,
    force: bool = False,
) -> Bisection:
    """Find the smallest part of an ONNX file that TensorRT refuses to build, and write it as a file of its own.

    Any ONNX file will do. The part is a run of neighbouring nodes, without those that its last one does not need; its
    inputs have the shapes that they have at `batch`, and whole numbers that decide shapes are constants in it.

    Args:
        onnx: The ONNX file.
        output: The file for the part. Default: next to the ONNX, `x.refused.onnx`.
        precision: What floats are converted to before.
        runtime: `tensorrt` or `tensorrt-rtx`; what is installed by default.
        targets: GPU architectures such as `sm89`. Default: the GPU here, else all.
        batch: The batch of a file with a dynamic one.
        force: Replace the output where it exists.

    Raises:
        BadFileError: The file is no ONNX model, or ONNX Runtime cannot compute it.
        UnavailableError: TensorRT cannot start here.
    """
    if batch < 1:
        raise UsageError(f"batch is {batch}, expected 1 or more")
    source = Path(onnx)
    check_input(source, "an ONNX model")
    place = source.with_suffix(".refused.onnx") if output is None else Path(output)
    with needs("onnx"), needs(onnxruntime_extra()):
        from evodeploy.debugging.refusal import refused
    with claimed([(place, ONNX)], force, source):
        asked = tuple(name.lower() for name in several_names(targets))
        return refused(source, place, precision, runtime, asked, batch)
