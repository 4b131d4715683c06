"""What FP16 and BF16 change: `python benchmarks/precision_agreement.py [CHECKPOINT IMAGES.npy]`.

Without arguments, the sample on its whole held-out set. Each reduced ONNX file against PyTorch in FP32: top-1, cosine,
and the tokens that each selection keeps. FP16 is run by ONNX Runtime, BF16 by OpenVINO, both on the CPU, where they
show the rounding of what is stored, not of what a GPU accumulates. Prints a Markdown table.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from evodeploy.agreement import TOLERANCES, agreement
from evodeploy.artefacts import open_artefact
from evodeploy.engines.base import run_all
from evodeploy.export.run import ExportRequest, export_checkpoint
from evodeploy.specs import Reduced

SAMPLE = Path(__file__).parents[1] / "sample"
ENGINES: dict[Reduced, str] = {"fp16": "onnxruntime", "bf16": "openvino"}


def main() -> None:
    """Print the table."""
    if len(sys.argv) > 1:
        checkpoint, images = Path(sys.argv[1]), np.load(sys.argv[2])
    else:
        sys.path.insert(0, str(SAMPLE))
        from digits import split

        checkpoint, images = SAMPLE / "digits.pth", split()[1].images.numpy()
    print(f"{checkpoint.name}, {len(images)} images\n")
    print("| precision | same top-1 | cosine, worst and median | selection | tokens agreeing | near-ties | errors |")
    print("|---|---|---|---|---|---|---|")
    for precision, engine in ENGINES.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "m.onnx")
            request = ExportRequest(checkpoint, path, opset=23, tokens=True, precision=precision)
            export_checkpoint(request, tell=lambda text: None)
            with open_artefact(path, engine) as reduced, open_artefact(checkpoint, tokens=True) as torch:
                assert reduced.info is not None
                grid = reduced.info.image_size // reduced.info.patch_size
                verdict = agreement(run_all(torch, images), run_all(reduced, images), TOLERANCES[precision], grid)
        logits = verdict.logits
        cells = [
            precision,
            "–" if logits.top1 is None else f"{logits.top1:.2%}",
            f"{logits.min_cosine:.6f} {logits.median_cosine:.6f}",
        ]
        for each in verdict.selections:
            row = [*cells, each.name, f"{each.agreement:.2%}", str(each.near_ties), str(each.errors)]
            print("| " + " | ".join(row) + " |")
            cells = [""] * len(cells)


if __name__ == "__main__":
    main()
