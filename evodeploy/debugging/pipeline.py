"""`evodeploy.debug`: finding the nodes at which a conversion of a network goes wrong, and how to repair it."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from evodeploy.arguments import checked
from evodeploy.compare.tolerance import tolerance_of
from evodeploy.debugging.report import DebugReport
from evodeploy.engines.device import onnxruntime_extra
from evodeploy.engines.opener import Source, resolved, title_of
from evodeploy.errors import UsageError, needs
from evodeploy.images import Images
from evodeploy.onnx_files import precision_of
from evodeploy.specs import Precision

_log = logging.getLogger(__name__)

BUDGET = 256 << 20  # bytes of the values of one part in one run


@checked
def debug(
    reference: Source,
    other: str | os.PathLike[str] | None = None,
    *,
    precision: Literal["fp16", "bf16"] | None = None,
    keep_fp32: Sequence[str] = (),
    images: Images | None = None,
    count: int = 8,
    seed: int = 0,
    tolerance: float | None = None,
    keep_ratio: float | Sequence[float] | None = None,
    repair: bool = True,
    budget: int = BUDGET,
) -> DebugReport:
    """Compare two ONNX networks node by node, and propose the fewest nodes to keep in FP32.

    All values that both compute are compared, by name, in ONNX Runtime on the CPU, each rounded to the type that its
    file gives it: see `debugging.emulation`. The other network uses the reference's selections, and selections that it
    would make differently are counted.

    Args:
        reference: The network that is right: a checkpoint or module, which is exported in memory, or any ONNX file.
        other: The ONNX file to compare with it.
        precision: Instead of `other`, the precision to convert the reference to in memory.
        keep_fp32: Nodes that this conversion keeps in FP32: patterns of names and operator types.
        images: Images, or a folder of them; random ones by default.
        count: The number of random images.
        seed: The seed of the random images.
        tolerance: The largest error of the outputs that passes, relative to their largest magnitude; by default that of
            the precision.
        keep_ratio: The keep ratio at which elastic files are compared; their own by default.
        repair: Propose the nodes to keep in FP32 if the tolerance is not met.
        budget: The approximate number of bytes of the values in memory at a time.

    Raises:
        UsageError: The two have no node in common, or the arguments contradict each other.
        BadFileError: A file is not an ONNX model, or ONNX Runtime cannot load it.
    """
    if (other is None) == (precision is None):
        raise UsageError("give either an ONNX file to compare, or --precision to compare a conversion")
    if keep_fp32 and precision is None:
        raise UsageError("--keep-fp32 is for the conversion with --precision: leave it out for a file")
    if count < 1 or seed < 0 or budget < 1:
        raise UsageError(f"count is {count}, seed {seed} and budget {budget}, expected 1, 0 and 1 or more")
    if tolerance is not None and not tolerance >= 0:
        raise UsageError(f"the tolerance is {tolerance}, expected 0 or more")
    source = resolved(reference)
    path = None if other is None else Path(other)
    with needs("onnx"), needs(onnxruntime_extra()):
        from evodeploy.debugging.comparison import Question, compare, converter, repaired
        from evodeploy.debugging.sources import beyond_range, exported, inputs_of, read_other, static
    read = None if path is None else read_other(path)
    first = exported(source, read, precision)
    right, given, info = static(first, read, keep_ratio)
    held = precision_of(right)
    if given is None and held in ("fp16", "bf16"):
        raise UsageError(f"the reference holds {held.upper()} weights already: give the FP32 file it was made from")
    if given is not None and held != "fp32":
        _log.warning(
            f"the reference is in {held.upper()}: its rounding errors are not counted, and nothing is proposed"
        )
    target: Precision = precision or precision_of(given or right)
    always = beyond_range(right, target)
    feeds, seen = inputs_of(right, info, images, count, seed, given)
    if given is None:
        given = converter(right, target, feeds)([*keep_fp32, *always]).model
    limit = tolerance_of((held, target)).logits if tolerance is None else tolerance
    asked = Question(right, given, feeds, seen, info.output if info else None, limit, budget)
    name = f"{title_of(source)} in {target.upper()}" if path is None else title_of(path)
    report = compare(asked, (title_of(source), name), random=images is None)
    if repair and not report.passed and target != "fp32" and held == "fp32":
        proposal = repaired(asked, report, target, [*keep_fp32, *always])
        report = dataclasses.replace(report, proposal=proposal)
    return report
