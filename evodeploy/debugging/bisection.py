"""Finding the smallest part of a network that an engine's builder refuses."""

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
    """The `nodes` of the ONNX file `onnx` that the builder `runtime` refuses, with its `reason`; `part` is their file.

    If the whole file builds at the fixed `batch`, nothing is refused and `part` is None. `builds` is the number of
    builds tried.
    """

    onnx: Path
    runtime: str
    part: Path | None
    nodes: tuple[str, ...]
    reason: str
    builds: int
    batch: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, as `evodeploy bisect --json` prints them."""
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
    """Find the smallest part of an ONNX file that TensorRT refuses to build, and write it to a separate file.

    Any ONNX file is accepted. The part is a run of consecutive nodes, without those that its last node does not need.
    Its inputs have the shapes that they have at `batch`, and integers that decide shapes are constants in it.

    Args:
        onnx: The ONNX file.
        output: The file for the part. Default: next to the ONNX, `x.refused.onnx`.
        precision: The precision that floats are converted to first.
        runtime: `tensorrt` or `tensorrt-rtx`; the installed one by default.
        targets: GPU architectures such as `sm89`. Default: that of the GPU of this machine, or all if it has none.
        batch: The batch size to use if the file's batch is dynamic.
        force: Replace an existing output.

    Raises:
        BadFileError: The file is not an ONNX model, or ONNX Runtime cannot compute it.
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
