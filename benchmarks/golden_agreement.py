"""Exported files compared with the reference's own weights and images: `python benchmarks/golden_agreement.py`.

For each golden entry, runs `evodeploy verify` of its checkpoint against the ONNX in FP32 and in FP16. Prints a Markdown
table of the tokens that agree, and of the largest logit error among images that keep the same tokens.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from evodeploy.compare.verification import verify
from evodeploy.exporter.pipeline import export
from evodeploy.specs import Reduced

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from cases import INDEX, published

PRECISIONS: tuple[Reduced | None, ...] = (None, "fp16")


def main() -> None:
    """Print the table."""
    print("| entry | precision | tokens agreeing | near-ties | errors | logit error, same tokens | limit | passed |")
    print("|---|---|---|---|---|---|---|---|")
    for tag, entry in INDEX.items():
        for precision in PRECISIONS:
            print("| " + " | ".join([tag, precision or "fp32", *_cells(entry, precision)]) + " |", flush=True)


def _cells(entry: dict[str, Any], precision: Reduced | None) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, onnx = Path(folder, "golden.pth"), Path(folder, "golden.onnx")
        torch.save({"model": published(entry["model"])}, checkpoint)
        export(checkpoint, onnx, selection=entry["selection"], tokens=True, precision=precision or "fp32")
        verdict = verify(checkpoint, onnx, count=8)
    agreeing = min((each.agreement for each in verdict.selections), default=1.0)
    near, errors = (sum(getattr(each, name) for each in verdict.selections) for name in ("near_ties", "errors"))
    error = f"{verdict.logits.max_error_unmoved:.1e}"
    return [f"{agreeing:.2%}", str(near), str(errors), error, f"{verdict.logits.limit:.0e}", str(verdict.passed)]


if __name__ == "__main__":
    main()
