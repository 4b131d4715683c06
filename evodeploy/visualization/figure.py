"""Figures of the tokens that each selection kept, for one image or for several at a glance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from evodeploy.visualization.drawing import coloured, enlarged, with_kept, with_scores
from evodeploy.visualization.evolution import Evolution, SelectionMap

TILE = 256  # pixels per side, approximately
COLUMNS = 4  # selections in a row
GAP, MARGIN = 16, 24
INK, PALE = (24, 28, 38), (96, 104, 120)
PAPER = (255, 255, 255)
TITLE, TEXT = 20, 15  # font sizes in pixels
HEADING = 2 * TEXT + 14  # space above a tile


def figure(evolution: Evolution, title: str) -> Image.Image:
    """Draw one image: as the network saw it, what each selection kept, and below that the scores of the selection."""
    whole = enlarged(evolution.picture, TILE)
    rows = [evolution.selections[i : i + COLUMNS] for i in range(0, len(evolution.selections), COLUMNS)]
    scored = any(selection.scores is not None for selection in evolution.selections)
    step, block = whole.width + GAP, HEADING + whole.height + (GAP + whole.height if scored else 0)
    columns = 1 + min(COLUMNS, len(evolution.selections))
    top = MARGIN + TITLE + GAP
    legend = TEXT + 3 * GAP if scored else GAP
    sheet = Image.new("RGB", (2 * MARGIN + columns * step - GAP, top + len(rows) * (block + GAP) + legend), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN), title, INK, ImageFont.load_default(TITLE))
    for line, selections in enumerate(rows):
        y = top + line * (block + GAP)
        if line == 0:
            heading(
                pen, MARGIN, y, "as the network sees it", f"{len(evolution.picture)} by {len(evolution.picture)} pixels"
            )
            sheet.paste(whole, (MARGIN, y + HEADING))
        for column, selection in enumerate(selections, 1):
            x = MARGIN + column * step
            heading(pen, x, y, selection.title, _share(selection))
            sheet.paste(with_kept(whole, selection.kept), (x, y + HEADING))
            if selection.scores is not None:
                sheet.paste(with_scores(whole, selection.scores), (x, y + HEADING + whole.height + GAP))
    if scored:
        words = scale_in_words(evolution.selections[0])
        _legend(pen, sheet, (MARGIN + step, sheet.height - MARGIN - TEXT), whole.width, words)
    return sheet


def overview(evolutions: Sequence[Evolution], names: Sequence[str]) -> Image.Image:
    """Draw several images, each in a column: the image, and what each selection kept of it."""
    tile = enlarged(evolutions[0].picture, TILE * 5 // 8).width
    rows = ["image", *(f"{s.title}\n{_share(s)}" for s in evolutions[0].selections)]
    font, small = ImageFont.load_default(TEXT), ImageFont.load_default(TEXT)
    left = MARGIN + max(round(font.getlength(line)) for row in rows for line in row.split("\n")) + GAP
    top = MARGIN + TEXT + GAP // 2
    size = (
        left + len(evolutions) * (tile + GAP // 2) + MARGIN - GAP // 2,
        top + len(rows) * (tile + GAP // 2) + MARGIN,
    )
    sheet = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    for row, heading in enumerate(rows):
        y = top + row * (tile + GAP // 2)
        pen.multiline_text((MARGIN, y + tile // 2), heading, INK, font, anchor="lm", spacing=6)
        for column, evolution in enumerate(evolutions):
            image = enlarged(evolution.picture, tile)
            drawn = image if row == 0 else with_kept(image, evolution.selections[row - 1].kept)
            sheet.paste(drawn, (left + column * (tile + GAP // 2), y))
    for column, name in enumerate(names):
        x = left + column * (tile + GAP // 2) + tile // 2
        pen.text((x, MARGIN), fitting(name, small, tile), PALE, small, anchor="ma")
    return sheet


def save_png(image: Image.Image, path: Path) -> None:
    """Write a figure as a PNG file that names evodeploy as its software."""
    made_by = PngInfo()
    made_by.add_text("Software", "evodeploy")
    image.save(path, "PNG", pnginfo=made_by)


def _share(selection: SelectionMap) -> str:
    return f"{int(selection.kept.sum())} of {selection.kept.size} tokens kept"


def heading(pen: ImageDraw.ImageDraw, x: int, y: int, first: str, second: str) -> None:
    """Write two lines above a tile, the second paler."""
    font = ImageFont.load_default(TEXT)
    pen.text((x, y), first, INK, font)
    pen.text((x, y + TEXT + 4), second, PALE, font)


def scale_in_words(selection: SelectionMap) -> tuple[str, str]:
    """Return the meaning of the darkest and the lightest colour of its scores."""
    if selection.merged:
        return "unlike the anchors: least", "most, and the anchors"
    return "class attention: least", "most, 2 % beyond"


def _legend(
    pen: ImageDraw.ImageDraw, sheet: Image.Image, place: tuple[int, int], width: int, words: tuple[str, str]
) -> None:
    font, (x, y) = ImageFont.load_default(TEXT), place
    pen.text((x, y), words[0], PALE, font)
    start = x + round(font.getlength(words[0])) + 10
    bar = coloured(np.tile(np.linspace(0, 1, width // 2, dtype=np.float32), (TEXT, 1)))
    sheet.paste(Image.fromarray(bar.round().astype(np.uint8)), (start, y))
    pen.text((start + width // 2 + 10, y), words[1], PALE, font)


def fitting(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """Return `text`, shortened at its end if it is wider than `width`."""
    while len(text) > 1 and font.getlength(text) > width:
        text = text[:-2] + "…"
    return text
