"""Just enough SVG for a report's plots: elements, and axes that turn values into pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from evodeploy.text import printable

TICKS = 5  # about as many as an axis shows
VOID = {"input"}  # elements that HTML never closes


def element(tag: str, /, *content: str, **attributes: object) -> str:
    """One element; `content` is markup, attributes are escaped, `_` in their names is `-` and one at the end is cut."""
    written = "".join(f' {key.rstrip("_").replace("_", "-")}="{_text(value)}"' for key, value in attributes.items())
    return f"<{tag}{written}>" if tag in VOID else f"<{tag}{written}>{''.join(content)}</{tag}>"


def drawing(
    width: int, height: int, heading: str, style: str, parts: Sequence[str], *, widest: int | None = None
) -> str:
    """A file of its own with `parts` on white, called `heading`; with `widest` it fills a page up to as many pixels."""
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
    """The tooltip and screen reader text of the element around it; `words` are escaped."""
    return element("title", _text(words))


def text(content: str, x: float, y: float, **attributes: object) -> str:
    """Words at a place; `content` is escaped."""
    return element("text", _text(content), x=x, y=y, **attributes)


def line(x1: float, y1: float, x2: float, y2: float, **attributes: object) -> str:
    """A straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, **attributes)


def _text(value: object) -> str:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else escape(printable(str(value)))


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high` on pixels from `start` to `end`, in proportion or by their logarithms."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of `value`."""
        low, high, at = self.low, self.high, value
        if self.logarithmic:
            low, high, at = math.log(low), math.log(high), math.log(at)
        return self.start + (at - low) / ((high - low) or 1) * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        """Round values within the axis."""
        if self.logarithmic:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            round_values = [digit * 10.0**decade for decade in decades for digit in (1, 2, 5)]
        else:
            step = _round_step((self.high - self.low) / TICKS)
            first = math.ceil(self.low / step)
            round_values = [step * i for i in range(first, first + 3 * TICKS)]
        return [value for value in round_values if self.low <= value <= self.high * (1 + 1e-9)]


def _round_step(step: float) -> float:
    """The next of 1, 2, 5, 10, … that is no smaller than `step`."""
    unit = 10.0 ** math.floor(math.log10(step or 1))
    return next(digit * unit for digit in (1, 2, 5, 10) if digit * unit >= step * (1 - 1e-9))


def short(value: float) -> str:
    """A tick's number without needless zeros."""
    return f"{value:g}" if abs(value) < 1e5 else f"{value:.0e}"
