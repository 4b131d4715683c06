"""One image with its predicted classes and the patches that each selection kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from evodeploy.visualization.drawing import Pixels, enlarged, with_kept
from evodeploy.visualization.figure import GAP, HEADING, INK, MARGIN, PALE, PAPER, TEXT, fitting, heading

TILE = 192  # pixels per side, approximately
BARS = 260  # width in pixels of the list of classes
BAR = (158, 46, 100)
TRACK = (232, 234, 240)
SHOWN = 5  # classes, at most


def card(picture: Pixels, classes: Sequence[tuple[str, float]], kept: Sequence[NDArray[np.bool_]]) -> Image.Image:
    """Draw `picture` (size, size, 3) as the network saw it, `kept` (side, side) of each selection, and five `classes`.

    Each class is its name and its probability.
    """
    whole = enlarged(picture, TILE)
    tiles = [("as the network sees it", f"{len(picture)} by {len(picture)} pixels", whole)]
    for number, mask in enumerate(kept, 1):
        tiles.append((f"selection {number}", f"{int(mask.sum())} of {mask.size} tokens kept", with_kept(whole, mask)))
    width = 2 * MARGIN + len(tiles) * (whole.width + GAP) + BARS
    sheet = Image.new("RGB", (width, 2 * MARGIN + HEADING + max(whole.height, SHOWN * 36)), PAPER)
    pen = ImageDraw.Draw(sheet)
    for column, (first, second, tile) in enumerate(tiles):
        x = MARGIN + column * (whole.width + GAP)
        heading(pen, x, MARGIN, first, second)
        sheet.paste(tile, (x, MARGIN + HEADING))
    for row, (name, probability) in enumerate(classes[:SHOWN]):
        _bar(pen, width - MARGIN - BARS, MARGIN + HEADING + row * 36, name, probability)
    return sheet


def _bar(pen: ImageDraw.ImageDraw, x: int, y: int, name: str, probability: float) -> None:
    font, share = ImageFont.load_default(TEXT), f"{probability:.1%}"
    pen.text((x, y), fitting(name, font, BARS - 70), INK, font)
    pen.text((x + BARS, y), share, PALE, font, anchor="ra")
    pen.rectangle((x, y + TEXT + 6, x + BARS - 1, y + TEXT + 11), TRACK)
    filled = round(BARS * probability)
    if filled:
        pen.rectangle((x, y + TEXT + 6, x + filled - 1, y + TEXT + 11), BAR)
