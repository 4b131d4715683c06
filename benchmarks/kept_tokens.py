"""Draw what a network keeps: `python benchmarks/kept_tokens.py MODEL.onnx OUTPUT.png [IMAGE …]`.

One column for each image, by default the project's photographs: the image, then the patches that each selection keeps,
the others faded. MODEL.onnx must have been exported with `--tokens`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from photographs import photographs
from PIL import Image, ImageDraw, ImageFont, ImageOps

import evodeploy
from evodeploy.errors import EvodeployError
from evodeploy.preprocess import open_image, prepare

SHOWN = ("astronaut", "rocket", "camera", "coffee", "cat", "flower", "china")
FADED, INTO = 0.75, (170, 186, 222)  # how far a patch that is not kept goes into what colour, its own gone
GAP, MARGIN, TOP, FONT = 8, 175, 40, 22


def draw(model: Path, images: dict[str, Image.Image]) -> Image.Image:
    """One picture of `images` and of what `model` keeps of each."""
    with evodeploy.open_engine(model) as engine:
        info = engine.info
        names = [spec.name for spec in engine.outputs if spec.name.startswith("selected_")]
        if info is None or not names:
            sys.exit(f"{model} does not tell what it keeps: export it with --tokens and a keep ratio below 1")
        batch = np.stack([prepare(image, info) for image in images.values()])
        kept = [np.concatenate([engine.run(one[None])[name] for one in batch]) for name in names]
    size, grid = info.image_size, info.image_size // info.patch_size
    squares = [_unprepared(one, info.preprocessing.mean, info.preprocessing.std) for one in batch]
    headings = ["image"]
    told = len(info.stages) == len(kept)
    for i, positions in enumerate(kept):
        before = f"\nbefore block {info.stages[i]}" if told else ""
        headings.append(f"selection {i + 1}{before}\n{positions.shape[1]} of {grid**2}")
    font = ImageFont.load_default(FONT)
    sheet = Image.new("RGB", (MARGIN + len(squares) * (size + GAP), TOP + len(headings) * (size + GAP)), "white")
    pen = ImageDraw.Draw(sheet)
    for row, heading in enumerate(headings):
        y = TOP + row * (size + GAP)
        pen.multiline_text((GAP, y + size // 2), heading, "black", font, anchor="lm")
        for column, square in enumerate(squares):
            tile = square if row == 0 else _faded(square, kept[row - 1][column], grid)
            sheet.paste(tile, (MARGIN + column * (size + GAP), y))
    for column, name in enumerate(images):
        pen.text((MARGIN + column * (size + GAP) + size // 2, TOP // 2), name, "black", font, anchor="mm")
    return sheet


def _unprepared(tensor: NDArray[np.float32], mean: tuple[float, ...], std: tuple[float, ...]) -> Image.Image:
    pixels = tensor.transpose(1, 2, 0) * np.array(std) + np.array(mean)
    return Image.fromarray((pixels.clip(0, 1) * 255).round().astype(np.uint8))


def _faded(image: Image.Image, kept: NDArray[np.int64], grid: int) -> Image.Image:
    """`image` with only the patches at the positions `kept`, of a square grid, in full colour."""
    mask = np.zeros(grid**2, np.uint8)
    mask[kept] = 255
    whole = Image.fromarray(mask.reshape(grid, grid)).resize(image.size, Image.Resampling.NEAREST)
    pale = Image.blend(ImageOps.grayscale(image).convert("RGB"), Image.new("RGB", image.size, INTO), FADED)
    return Image.composite(image, pale, whole)


def main() -> None:
    """Draw and save."""
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    model, output, *given = map(Path, sys.argv[1:])
    try:
        images = {path.stem: open_image(path) for path in given}
        if not images:
            known = photographs()
            images = {name: known[name] for name in SHOWN}
        draw(model, images).save(output)
    except EvodeployError as error:
        sys.exit(f"Error: {error}")
    print(output)


if __name__ == "__main__":
    main()
