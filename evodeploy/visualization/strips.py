"""One image at several keep ratios: a column for each ratio, a row for each selection."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from evodeploy.text import ratios_in_words
from evodeploy.visualization.drawing import enlarged, with_kept
from evodeploy.visualization.evolution import Evolution
from evodeploy.visualization.figure import GAP, HEADING, INK, MARGIN, PAPER, TITLE, heading

TILE = 192  # pixels per side, approximately


def strips(evolutions: Sequence[Evolution], title: str) -> Image.Image:
    """Draw one image: as the network saw it, and a column for each keep ratio with what each selection kept."""
    picture = evolutions[0].picture
    whole = enlarged(picture, TILE)
    step, block = whole.width + GAP, HEADING + whole.height + GAP
    rows, top = len(evolutions[0].selections), MARGIN + TITLE + GAP
    size = (2 * MARGIN + (1 + len(evolutions)) * step - GAP, top + rows * block - GAP + MARGIN)
    sheet = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN), title, INK, ImageFont.load_default(TITLE))
    heading(pen, MARGIN, top, "network's input", f"{len(picture)} by {len(picture)} pixels")
    sheet.paste(whole, (MARGIN, top + HEADING))
    for column, evolution in enumerate(evolutions, 1):
        x = MARGIN + column * step
        for row, selection in enumerate(evolution.selections):
            y = top + row * block
            kept = f"selection {row + 1}: {int(selection.kept.sum())} of {selection.kept.size}"
            heading(pen, x, y, said(evolution.keep_ratios), kept)
            sheet.paste(with_kept(whole, selection.kept), (x, y + HEADING))
    return sheet


def last_of_each(evolutions: Sequence[Evolution]) -> Evolution:
    """Return what the last selection kept at each keep ratio, as the selections of one image."""
    last = tuple(
        dataclasses.replace(each.selections[-1], title=f"{said(each.keep_ratios)}, selection {len(each.selections)}")
        for each in evolutions
    )
    return dataclasses.replace(evolutions[0], selections=last)


def said(ratios: Sequence[float]) -> str:
    """Format the keep ratios in words: a single one if all stages have the same."""
    return f"keep ratio {ratios_in_words(ratios)}"
