"""The documentation's pictures of token selection: `python benchmarks/selection_pictures.py FOLDER [CHECKPOINT]`.

FOLDER/keep-ratios.png: one photograph at five keep ratios. FOLDER/astronaut.png: one, with the class attention.
FOLDER/kept-tokens.png: four, with the tokens that each selection keeps. The network is the trained DINOv2 of
benchmarks/real_weights.py as one elastic file, at 224 pixels a side; tokens that are not kept rest. The photographs are
those of benchmarks/photographs.py. The pictures have 128 colours, for documents.
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
SEVERAL = ("camera", "china", "coffee", "flower")


def main() -> None:
    """Draw all three."""
    output = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(sys.argv[2]) if len(sys.argv) > 2 else checkpoint(Path(folder, "dinov2_small.pth"))
        model = Path(folder, "dinov2_small.onnx")
        evodeploy.export(
            weights, model, elastic=(0.1, 1.0), keep_ratio=0.5, fast_path="rest", image_size=224, tokens=True
        )
        files = {name: Path(folder, f"{name}.png") for name in ("cat", "astronaut", *SEVERAL)}
        for name, file in files.items():
            photographs()[name].save(file)
        pictures = {
            "keep-ratios": evodeploy.visualize(model, files["cat"], keep_ratios=RATIOS).figure(),
            "astronaut": evodeploy.visualize(model, files["astronaut"]).figure(),
            "kept-tokens": evodeploy.visualize(model, [files[name] for name in SEVERAL]).overview(),
        }
    for name, picture in pictures.items():
        picture.quantize(128, dither=Image.Dither.NONE).save(output / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
