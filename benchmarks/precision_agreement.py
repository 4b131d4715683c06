"""The effect of reduced precisions: `python benchmarks/precision_agreement.py [CHECKPOINT FOLDER]`.

Without arguments it uses the sample on its whole held-out set; otherwise the checkpoint at 224 px on the pictures in
the folder, such as the photographs that `make demo-real` writes; both at keep ratio 0.5. Each reduced ONNX file is
compared with PyTorch in FP32: top-1, cosine, and the tokens that each selection keeps. FP16 and INT8 run in ONNX
Runtime, BF16 in OpenVINO, all on the CPU, where they show the rounding of stored values, not that of a GPU's
accumulation. Prints a Markdown table.

`--keep-fp32 PATTERN` keeps more nodes in FP32, as in `evodeploy export`. `--calibrate FOLDER` measures INT8 in place of
FP16 and BF16, calibrated on other pictures: as `evodeploy export` writes it, and without SmoothQuant.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from unittest import mock

from onnx import ModelProto

from evodeploy.compare.agreement import Agreement, agreement
from evodeploy.compare.tolerance import TOLERANCES
from evodeploy.datasets.sources import images_of
from evodeploy.engines.base import Array, run_all
from evodeploy.engines.opener import open_engine
from evodeploy.exporter.pipeline import export
from evodeploy.graph.smoothing import Smoothed
from evodeploy.models.checkpoint import load_checkpoint
from evodeploy.preprocess import as_input, pictures
from evodeploy.specs import Precision

SAMPLE = Path(__file__).parents[1] / "sample"
ENGINES: dict[Precision, str] = {"fp16": "onnxruntime", "bf16": "openvino", "int8": "onnxruntime"}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="The effect of reduced precisions.")
    parser.add_argument("checkpoint", type=Path, nargs="?", default=SAMPLE / "digits.pth")
    parser.add_argument("folder", type=Path, nargs="?", help="pictures; without, the sample's held-out digits")
    parser.add_argument("--calibrate", type=Path, help="measure INT8, calibrated on the pictures in this folder")
    parser.add_argument("--keep-fp32", action="append", default=[], metavar="PATTERN")
    args = parser.parse_args()
    size, images = None, None
    if args.folder is None:
        sys.path.insert(0, str(SAMPLE))
        from digits import split

        images = split()[1].images.numpy()
    else:
        size = 224
        info = load_checkpoint(args.checkpoint, image_size=size).info
        images = as_input(pictures(images_of(args.folder), info), info)
    print(f"{args.checkpoint.name}, {len(images)} images\n")
    print("| precision | same top-1 | cosine, worst and median | selection | tokens agreeing | near-ties | errors |")
    print("|---|---|---|---|---|---|---|")
    for precision in ("int8",) if args.calibrate else ("fp16", "bf16"):
        print_row(precision, compared(args, precision, images, size))
    if args.calibrate:
        with mock.patch("evodeploy.graph.quantization.smoothed", unchanged):
            print_row("int8 without SmoothQuant", compared(args, "int8", images, size))


def unchanged(model: ModelProto, magnitudes: Mapping[str, Array]) -> Smoothed:
    """Leave outliers where they are."""
    return Smoothed(model, 0, magnitudes=magnitudes)


def compared(args: argparse.Namespace, precision: Precision, images: Array, size: int | None) -> Agreement:
    """Compare the checkpoint, exported in `precision`, with PyTorch on `images`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "m.onnx")
        export(
            args.checkpoint,
            path,
            opset=23 if precision == "bf16" else None,  # operators take BF16 from 22 on
            keep_ratio=0.5,
            tokens=True,
            precision=precision,
            image_size=size,
            images=args.calibrate,
            keep_fp32=args.keep_fp32,
        )
        with open_engine(path, ENGINES[precision]) as reduced:
            assert reduced.info is not None
            with open_engine(args.checkpoint, tokens=True, like=reduced.info) as torch:
                expected, got = run_all(torch, images), run_all(reduced, images)
            grid = reduced.info.image_size // reduced.info.patch_size
            return agreement(expected, got, TOLERANCES[precision], grid)


def print_row(name: str, verdict: Agreement) -> None:
    """Print the rows of a precision: one for each selection."""
    logits = verdict.logits
    cells = [
        name,
        "–" if logits.top1 is None else f"{logits.top1:.2%}",
        f"{logits.min_cosine:.6f} {logits.median_cosine:.6f}",
    ]
    for each in verdict.selections:
        row = [*cells, each.name, f"{each.agreement:.3%}", str(each.near_ties), str(each.errors)]
        print("| " + " | ".join(row) + " |")
        cells = [""] * len(cells)


if __name__ == "__main__":
    main()
