"""The effect of FP16 and BF16: `python benchmarks/precision_agreement.py [CHECKPOINT FOLDER]`.

Without arguments it uses the sample on its whole held-out set; otherwise the checkpoint at 224 px on the pictures in
the folder, such as the photographs that `make demo-real` writes; both at keep ratio 0.5. Each reduced ONNX file is
compared with PyTorch in FP32: top-1, cosine, and the tokens that each selection keeps. FP16 runs in ONNX Runtime, BF16
in OpenVINO, both on the CPU, where they show the rounding of stored values, not that of a GPU's accumulation. Prints a
Markdown table.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from evodeploy.compare.agreement import agreement
from evodeploy.compare.tolerance import TOLERANCES
from evodeploy.datasets.sources import images_of
from evodeploy.engines.base import run_all
from evodeploy.engines.opener import open_engine
from evodeploy.exporter.pipeline import export
from evodeploy.models.checkpoint import load_checkpoint
from evodeploy.preprocess import as_input, pictures
from evodeploy.specs import Reduced

SAMPLE = Path(__file__).parents[1] / "sample"
ENGINES: dict[Reduced, str] = {"fp16": "onnxruntime", "bf16": "openvino"}


def main() -> None:
    """Print the table."""
    if len(sys.argv) > 1:
        checkpoint, size = Path(sys.argv[1]), 224
        info = load_checkpoint(checkpoint, image_size=size).info
        images = as_input(pictures(images_of(sys.argv[2]), info), info)
    else:
        sys.path.insert(0, str(SAMPLE))
        from digits import split

        checkpoint, size, images = SAMPLE / "digits.pth", None, split()[1].images.numpy()
    print(f"{checkpoint.name}, {len(images)} images\n")
    print("| precision | same top-1 | cosine, worst and median | selection | tokens agreeing | near-ties | errors |")
    print("|---|---|---|---|---|---|---|")
    for precision, engine in ENGINES.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "m.onnx")
            opset = 23 if precision == "bf16" else None  # operators take BF16 from 22 on
            export(checkpoint, path, opset=opset, keep_ratio=0.5, tokens=True, precision=precision, image_size=size)
            with open_engine(path, engine) as reduced:
                assert reduced.info is not None
                with open_engine(checkpoint, tokens=True, like=reduced.info) as torch:
                    expected, got = run_all(torch, images), run_all(reduced, images)
                grid = reduced.info.image_size // reduced.info.patch_size
                verdict = agreement(expected, got, TOLERANCES[precision], grid)
        logits = verdict.logits
        cells = [
            precision,
            "–" if logits.top1 is None else f"{logits.top1:.2%}",
            f"{logits.min_cosine:.6f} {logits.median_cosine:.6f}",
        ]
        for each in verdict.selections:
            row = [*cells, each.name, f"{each.agreement:.3%}", str(each.near_ties), str(each.errors)]
            print("| " + " | ".join(row) + " |")
            cells = [""] * len(cells)


if __name__ == "__main__":
    main()
