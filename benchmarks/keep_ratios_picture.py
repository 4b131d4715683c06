"""The picture of one image at five keep ratios: `python benchmarks/keep_ratios_picture.py OUTPUT.png [CHECKPOINT]`.

The network is the trained DINOv2 of benchmarks/real_weights.py as one elastic file, at 224 pixels a side; tokens that
are not kept rest. The photograph is one of benchmarks/photographs.py. In 128 colours, for documents.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from photographs import photographs
from PIL import Image
from real_weights import checkpoint

import evodeploy

RATIOS = (0.1, 0.25, 0.5, 0.75, 1.0)


def main() -> None:
    """Draw it."""
    output = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(sys.argv[2]) if len(sys.argv) > 2 else checkpoint(Path(folder, "dinov2_small.pth"))
        model, cat = Path(folder, "dinov2_small.onnx"), Path(folder, "cat.png")
        evodeploy.export(
            weights, model, elastic=(0.1, 1.0), keep_ratio=0.5, fast_path="rest", image_size=224, tokens=True
        )
        photographs()["cat"].save(cat)
        drawn = evodeploy.visualize(model, cat, keep_ratios=RATIOS).figure()
    drawn.quantize(128, dither=Image.Dither.NONE).save(output, optimize=True)


if __name__ == "__main__":
    main()
