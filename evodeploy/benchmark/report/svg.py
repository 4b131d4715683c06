"""Minimal SVG for a report's plots: elements, and axes that turn values into pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from evodeploy.text import printable

TICKS = 5  # approximate number of ticks of an axis
VOID = {"input"}  # elements that HTML never closes


def element(tag: str, /, *content: str, **attributes: object) -> str:
    """Return one element. `content` is markup; attributes are escaped. In names `_` becomes `-`, a final one is cut."""
    written = "".join(f' {key.rstrip("_").replace("_", "-")}="{_text(value)}"' for key, value in attributes.items())
    return f"<{tag}{written}>" if tag in VOID else f"<{tag}{written}>{''.join(content)}</{tag}>"


def drawing(
    width: int, height: int, heading: str, style: str, parts: Sequence[str], *, widest: int | None = None
) -> str:
    """Return a separate file with `parts` on white, titled `heading`. `widest` lets it fill a page up to that width."""
    size = {"width": width, "height": height} if widest is None else {"width": "100%", "style": f"max-width:{widest}px"}
    return element(
        "svg",
        title(heading),
        element("style", style),
        element("rect", width=width, height=height, fill="#ffffff"),
        *parts,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width} {height}",
        **size,
        role="img",
        data_made_by="evodeploy",
    )


def title(words: str) -> str:
    """Return the tooltip and screen reader text of the enclosing element. `words` are escaped."""
    return element("title", _text(words))


def text(content: str, x: float, y: float, **attributes: object) -> str:
    """Return text at a position. `content` is escaped."""
    return element("text", _text(content), x=x, y=y, **attributes)


def line(x1: float, y1: float, x2: float, y2: float, **attributes: object) -> str:
    """Return a straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, **attributes)


def _text(value: object) -> str:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else escape(printable(str(value)))


@dataclass(frozen=True)
class Axis:
    """Maps values from `low` to `high` to pixels from `start` to `end`, linearly or logarithmically."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """Return the pixel of `value`."""
        low, high, at = self.low, self.high, value
        if self.logarithmic:
            low, high, at = math.log(low), math.log(high), math.log(at)
        return self.start + (at - low) / ((high - low) or 1) * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        """The round values within the axis."""
        if self.logarithmic:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            round_values = [digit * 10.0**decade for decade in decades for digit in (1, 2, 5)]
        else:
            step = _round_step((self.high - self.low) / TICKS)
            first = math.ceil(self.low / step)
            round_values = [step * i for i in range(first, first + 3 * TICKS)]
        return [value for value in round_values if self.low <= value <= self.high * (1 + 1e-9)]


def _round_step(step: float) -> float:
    """Return the next of 1, 2, 5, 10, … that is not smaller than `step`."""
    unit = 10.0 ** math.floor(math.log10(step or 1))
    return next(digit * unit for digit in (1, 2, 5, 10) if digit * unit >= step * (1 - 1e-9))


def short(value: float) -> str:
    """Return the number of a tick without needless zeros."""
    return f"{value:g}" if abs(value) < 1e5 else f"{value:.0e}"
